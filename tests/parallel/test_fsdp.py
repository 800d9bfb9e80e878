"""Sharded training comes to what one process comes to, and every rank's share is saved."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import LlamaForCausalLM

from llama_recipes_local.planning.setting import Batch, Ranks, Setting
from llama_recipes_local.planning.shapes import shape_of
from llama_recipes_local.planning.speed import gathered_bytes

pytestmark = pytest.mark.ranks

Tensors = dict[str, torch.Tensor]

# Ranks add up float32 gradients in another order than one process does, a relative error of some
# 1e-7. AdamW divides a gradient by its own size, so where an entry is close to zero that error is
# no longer small beside it, and the entry's step, of up to lr, may be off by a part of itself.
# So the largest difference may be a tenth of one step of lr 1e-3, and the mean difference must be
# rounding: 3e-8 is one part in 150,000 of what five steps move. Seen are 1.2e-5 and 3e-9.
LARGEST = 1e-4
MEAN = 3e-8
# float32 sums of some 300 terms; a spacing at 7 is 4.8e-7, two of them are seen
LOSS = {"rel": 5e-7}
# a norm adds up squares, all of one sign
NORM = {"rel": 2e-6}


def assert_same_weights(ours: Tensors, theirs: Tensors) -> None:
    assert ours.keys() == theirs.keys()
    differences = {name: (tensor - theirs[name]).abs() for name, tensor in ours.items()}
    assert max(float(difference.max()) for difference in differences.values()) < LARGEST
    assert max(float(difference.mean()) for difference in differences.values()) < MEAN


def assert_same_steps(ours: Any, theirs: Any) -> None:
    assert len(ours.steps) == len(theirs.steps)
    for step, expected in zip(ours.steps, theirs.steps, strict=True):
        assert step["loss"] == pytest.approx(expected["loss"], **LOSS)
        assert step["grad_norm"] == pytest.approx(expected["grad_norm"], **NORM)
        assert step["label_tokens"] == expected["label_tokens"]


@pytest.mark.parametrize(
    "name",
    [
        "FULL_SHARD",
        "SHARD_GRAD_OP",
        "NO_SHARD",
        "HYBRID_SHARD",
        "offloaded",
        "kept-activations",
        "accumulated",
    ],
)
def test_two_ranks_train_the_adapter_of_one_process(
    two_ranks: Any, one_process: Callable[[str], Any], name: str
) -> None:
    alone = one_process("lora")
    assert_same_steps(two_ranks[name], alone)
    assert_same_weights(two_ranks[name].adapter, alone.adapter)


@pytest.mark.parametrize("name", ["FULL_SHARD", "HYBRID_SHARD"])
def test_four_ranks_train_the_adapter_of_one_process(
    four_ranks: Any, one_process: Callable[[str], Any], name: str
) -> None:
    alone = one_process("lora")
    assert_same_steps(four_ranks[name], alone)
    assert_same_weights(four_ranks[name].adapter, alone.adapter)


def test_some_steps_were_clipped_and_some_were_not(one_process: Callable[[str], Any]) -> None:
    # AdamW overlooks a gradient's scale; its norm and its clipping do not
    norms = [step["grad_norm"] for step in one_process("lora").steps]
    assert min(norms) < 0.35 < max(norms)


def test_the_adapter_moved(one_process: Callable[[str], Any]) -> None:
    # B starts from zero, so what it holds is what was trained: hundreds of the tolerance
    adapter = one_process("lora").adapter
    assert all(float(t.abs().max()) > 2e-3 for name, t in adapter.items() if "lora_B" in name)


def test_two_ranks_train_the_model_of_one_process(
    two_ranks: Any, one_process: Callable[[str], Any], tiny_model: Path
) -> None:
    alone = one_process("full")
    assert_same_steps(two_ranks["full"], alone)
    assert_same_weights(two_ranks["full"].model, alone.model)
    start = LlamaForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).state_dict()
    moved = [float((start[name] - tensor).abs().max()) for name, tensor in alone.model.items()]
    assert min(moved) > 1e-3


@pytest.mark.parametrize(("name", "rows", "steps"), [("uneven", 48, 3), ("uneven-padded", 60, 2)])
def test_rows_that_do_not_go_round_count_as_in_one_process(
    two_ranks: Any, one_process: Callable[[str], Any], name: str, rows: int, steps: int
) -> None:
    alone = one_process(name)
    log = (two_ranks[name].output / "run.log").read_text()
    assert f"\nlength of dataset_train {rows}\n" in log
    assert len(alone.steps) == steps
    assert_same_steps(two_ranks[name], alone)
    assert_same_weights(two_ranks[name].adapter, alone.adapter)


@pytest.mark.parametrize("name", ["uneven", "uneven-padded"])
def test_ranks_validate_as_one_process(
    two_ranks: Any, one_process: Callable[[str], Any], name: str
) -> None:
    expected = one_process(name).evaluations
    assert two_ranks[name].evaluations == pytest.approx(expected, **LOSS)


@pytest.mark.parametrize("strategy", ["NO_SHARD", "SHARD_GRAD_OP", "FULL_SHARD"])
def test_ranks_answer_as_one_process(two_ranks: Any, strategy: str) -> None:
    """A batch is answered by one rank, whatever it holds of the model."""
    for rank in range(2):
        scores = json.loads((two_ranks.folder / f"answers-{rank}.json").read_text())
        (whole,) = scores["whole"]
        assert 0 < whole["stop_share"] < 1 and 0 < whole["rougeL"] < 1
        assert scores[strategy] == [whole, whole]


def test_answers_of_a_run_are_those_of_one_process(
    two_ranks: Any, one_process: Callable[[str], Any]
) -> None:
    rows = []
    for run in (two_ranks["uneven"], one_process("uneven")):
        first = json.loads((run.output / "evaluations.jsonl").read_text().splitlines()[0])
        rows.append({name: first[name] for name in ("step", "gleu", "stop_share")})
    assert rows[0] == rows[1]
    assert rows[0]["step"] == 0


def test_answers_before_and_after_training_are_those_of_one_process(
    two_ranks: Any, one_process: Callable[[str], Any]
) -> None:
    ranks, alone = (
        json.loads((run.output / "sample_answers.json").read_text())
        for run in (two_ranks["uneven"], one_process("uneven"))
    )
    assert len(ranks["answers"]) == 2 and ranks["answers"] == alone["answers"]
    # ranks add up gradients in another order
    numbers = {name: value for name, value in alone.items() if name != "answers"}
    assert {name: ranks[name] for name in numbers} == pytest.approx(numbers, rel=1e-6)


def test_activation_checkpointing_changes_nothing(two_ranks: Any) -> None:
    # the same operations on the same numbers in the same order, only twice: not a bit differs
    with_it, without = (two_ranks[name] for name in ("FULL_SHARD", "kept-activations"))
    assert all(tensor.equal(without.adapter[name]) for name, tensor in with_it.adapter.items())
    assert [s["loss"] for s in with_it.steps] == [s["loss"] for s in without.steps]


def test_only_the_first_rank_speaks(two_ranks: Any) -> None:
    first, second = two_ranks.launched.out
    assert second == ""
    assert "step 5/5" in first
    for err in two_ranks.launched.err:
        for word in ("Loading", "Warning"):
            assert word not in err


def held_by(adapter: Tensors) -> dict[str, list[float]]:
    """Return the numbers that each tensor's rows hold, in order and once each."""
    held = {}
    for name, tensor in adapter.items():
        assert all(row.eq(row[0]).all() for row in tensor)
        held[name] = list(dict.fromkeys(tensor[:, 0].tolist()))
    assert len(held) == 8
    return held


@pytest.mark.parametrize(
    ("launched", "name", "ranks"),
    [
        ("two_ranks", "sentinels", [1, 2]),
        ("four_ranks", "sentinels", [1, 2, 3, 4]),
        ("four_ranks", "hybrid-sentinels", [1, 2]),
    ],
)
def test_every_ranks_slice_of_every_adapter_is_saved(
    request: pytest.FixtureRequest, tiny_model: Path, launched: str, name: str, ranks: list[int]
) -> None:
    run = request.getfixturevalue(launched)[name]
    assert set(map(tuple, held_by(run.adapter).values())) == {tuple(ranks)}
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    loaded = peft.PeftModel.from_pretrained(model, str(run.output))
    reloaded = peft.get_peft_model_state_dict(loaded)
    assert all(tensor.equal(reloaded[key]) for key, tensor in run.adapter.items())
    assert reloaded.keys() == run.adapter.keys()


def test_float32_adapters_train_on_bfloat16_weights_in_one_unit(two_ranks: Any) -> None:
    report = json.loads((two_ranks["half"].output / "report.json").read_text())
    assert math.isfinite(report.pop("loss"))
    assert all(report.pop("moved"))
    assert report == {
        "computed_in": ["torch.bfloat16"],
        "held_in": ["torch.float32"],
        "optimizer_in": ["torch.float32"],
        "saved_in": ["torch.float32"],
        "weights_held_in": ["torch.bfloat16"],
    }


def test_label_tokens_are_counted_in_no_half_precision(
    two_ranks: Any, half_batch: dict[str, Any], tiny_model: Path
) -> None:
    """FSDP2 casts every float that goes into a model; rounded, this count would be off by 0.4%."""
    model = LlamaForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        whole = model(**{name: torch.tensor(rows) for name, rows in half_batch.items()}).loss
    # logits of about 1 in 8 bits, errors of some 2**-8 of both signs in a mean of 259
    assert two_ranks["half"].steps[0]["loss"] == pytest.approx(float(whole), rel=1e-3)


def test_ranks_add_up_the_gradients_norm_once(two_ranks: Any) -> None:
    report = json.loads((two_ranks["norm"].output / "report.json").read_text())
    assert report["collectives"] == 1  # not one for each of the adapter's tensors
    assert report["norm"] == pytest.approx(math.sqrt(report["entries"]), rel=1e-6)


def test_a_step_gathers_and_reduces_no_more_than_it_needs(two_ranks: Any, tiny_model: Path) -> None:
    """Four micro-batches: the two layers' gradients, of the adapter alone, are reduced once.

    The root is gathered once a step; layers once a step if they stay, else in each forward and
    backward pass.
    """
    report = json.loads((two_ranks["step"].output / "report.json").read_text())
    trained = sum(report["FULL_SHARD"]["trained"])
    root, layer = report["FULL_SHARD"]["gathered"][:2]
    assert root != layer
    assert sorted(report["FULL_SHARD"]["gathered"]) == sorted([root] + [layer] * 2 * 8)
    assert report["SHARD_GRAD_OP"]["gathered"] == [root, layer, layer]
    assert report["NO_SHARD"]["gathered"] == []
    assert report["FULL_SHARD"]["reduced"] == report["SHARD_GRAD_OP"]["reduced"]
    assert report["FULL_SHARD"]["reduced"] == [trained / 2] * 2
    assert report["NO_SHARD"]["reduced"] == [trained]
    shape = shape_of(json.loads((tiny_model / "config.json").read_text()))
    assert shape is not None
    for strategy, passes in (("FULL_SHARD", 8), ("SHARD_GRAD_OP", 1), ("NO_SHARD", 0)):
        setting = Setting(shape, batch=Batch(accumulation=4), ranks=Ranks(2, 1, strategy))
        planned = gathered_bytes(replace(setting, element=4.0)) + 4 * trained * passes
        # the planner counts the layers' norms to the root
        assert 4 * sum(report[strategy]["gathered"]) == pytest.approx(planned, rel=0.02), strategy


def test_replicas_average_half_precision_in_float32(two_ranks: Any) -> None:
    for rank in range(2):
        report = json.loads((two_ranks["averaged"].output / f"report-{rank}.json").read_text())
        assert report == {"gradients": [4.0], "sent": ["torch.float32"]}


@pytest.mark.parametrize("strategy", ["FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD"])
@pytest.mark.parametrize("fp8", [False, True])
def test_ranks_train_a_model_by_the_kernels_as_one_process(
    two_ranks: Any, fp8: bool, strategy: str
) -> None:
    for rank in range(2):
        report = json.loads((two_ranks["trained"].output / f"report-{rank}.json").read_text())
        found = report[f"{strategy} {fp8}"]
        assert found["gradients"] > 15
        assert found["off"] < 1e-5  # float32 sums in another order


@pytest.mark.parametrize("strategy", ["FULL_SHARD", "NO_SHARD"])
def test_a_rank_that_overflows_has_all_step_down(two_ranks: Any, strategy: str) -> None:
    """The others wait for nothing, and the run is the one that recomputes from the start."""
    ours, theirs = two_ranks[f"overflowed-{strategy}"], two_ranks[f"recomputed-{strategy}"]
    assert [step["loss"] for step in ours.steps] == [step["loss"] for step in theirs.steps]
    files = {path.relative_to(theirs.output) for path in theirs.output.rglob("*.safetensors")}
    files |= {path.relative_to(theirs.output) for path in theirs.output.rglob("random/*.json")}
    assert len(files) > 4
    for file in files:
        assert (ours.output / file).read_bytes() == (theirs.output / file).read_bytes()


def test_stepping_down_is_said_with_the_rank(two_ranks: Any) -> None:
    said = two_ranks.launched.out[0].splitlines()
    first = "--> Out of memory in a trial of the longest rows, 256 tokens on rank 1"
    then = "--> Stepping down, before the first step: --activation_policy full"
    assert said.count(first) == said.count(then) == 2


def test_no_run_leaves_a_pickle(two_ranks: Any, four_ranks: Any) -> None:
    for runs in (two_ranks, four_ranks):
        kinds = {path.suffix for path in runs.folder.rglob("*") if path.is_file()}
        assert ".safetensors" in kinds
        kinds -= {".html", ".svg", ".png"}  # the run's page
        assert kinds <= {".safetensors", ".json", ".jsonl", ".log", ".md", ".yaml"}
