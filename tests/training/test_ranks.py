"""Two ranks: one loss and gradient however rows are spread, and one stop for all of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_loss import GRADIENT_ERROR, LOSS, largest_difference
from torchrun import HELPERS, run_ranks

from llama_recipes_local import configs
from llama_recipes_local.data.concatenator import IGNORE_INDEX
from llama_recipes_local.utils import config_utils
from llama_recipes_local.utils.config_utils import get_dataloader_kwargs

pytestmark = pytest.mark.ranks

Samples = list[dict[str, list[int]]]
# of the gradients' batch, and of the trainings that stop
ROWS, MORE_ROWS = 16, 32
# on each of two ranks: one micro-batch of 8, eight of 1
SPREAD = {
    "whole": {"batch_size_training": 8},
    "in eights": {"batch_size_training": 1, "gradient_accumulation_steps": 8},
}
GRADIENTS = {
    f"{wrapper} {name}": {"wrapper": wrapper} | fields
    for wrapper in ("fsdp", "ddp")
    for name, fields in SPREAD.items()
}
STOPS = {
    f"{wrapper} {optimizer} {where}": {"wrapper": wrapper, "optimizer": optimizer, "where": where}
    for wrapper, optimizer, where in (
        ("fsdp", "adamw", "loss"),
        ("fsdp", "adamw", "gradient"),
        ("ddp", "adamw", "loss"),
        ("ddp", "sgd", "loss"),
    )
}


@pytest.fixture(scope="module")
def folder(
    samples: Samples,
    tiny_model: Path,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What two ranks left of all checks, from one launch."""
    folder, logs = tmp_path_factory.mktemp("ranks"), tmp_path_factory.mktemp("logs")
    checks = [("gradients", name, fields) for name, fields in GRADIENTS.items()]
    checks += [("stopped", name, fields) for name, fields in STOPS.items()]
    run = {"model": str(tiny_model), "samples": samples[:MORE_ROWS], "checks": checks}
    (folder / "runs.json").write_text(json.dumps(run))
    script = HELPERS / "loop_ranks.py"
    run_ranks(script, folder, ranks=2, env=environment, logs=logs)
    return folder


@pytest.mark.parametrize("name", GRADIENTS)
def test_two_ranks_have_the_loss_and_gradient_of_one(
    folder: Path, run_training: Callable[..., Any], samples: Samples, name: str
) -> None:
    rows = samples[:ROWS]
    assert len({sum(label != IGNORE_INDEX for label in row["labels"]) for row in rows}) > 4
    alone = run_training(rows, batching_strategy="padding", batch_size_training=ROWS)
    got = load_file(folder / f"{name}.safetensors")
    assert float(got.pop("loss")) == pytest.approx(alone.steps[0]["loss"], **LOSS)
    del got["reductions"]
    assert largest_difference(got, alone.gradients[0]) < GRADIENT_ERROR


def test_micro_batches_that_do_not_step_are_not_reduced(folder: Path) -> None:
    whole, eights = (load_file(folder / f"ddp {name}.safetensors")["reductions"] for name in SPREAD)
    assert whole.equal(eights)
    assert whole > 0


def report(folder: Path, name: str, rank: int) -> dict[str, Any]:
    return json.loads((folder / f"{name}-{rank}.json").read_text())


@pytest.mark.parametrize("name", STOPS)
def test_all_ranks_stop_before_a_weight_changes(folder: Path, name: str) -> None:
    for rank in (0, 1):
        left = report(folder, name, rank)
        assert left["message"].startswith("training stopped at step 3: ")
        assert "the weights are those after step 2" in left["message"]
        assert left["same"]
        assert left["lines"] == 2


@pytest.mark.parametrize("name", STOPS)
def test_the_rows_are_named(
    folder: Path, samples: Samples, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    said = report(folder, name, 0)["message"]
    assert report(folder, name, 1)["message"] == said
    rows = rows_of_rank(1, samples[:MORE_ROWS], tokenizer, monkeypatch)[5]
    starts = [repr(tokenizer.decode(samples[row]["input_ids"][:24]))[1:60] for row in rows]
    assert f"rank 1, micro-batch 5, rows {rows[0]}, {rows[1]}" in said
    assert all(start in said for start in starts)
    if name.endswith("loss"):
        assert "the loss is not finite on rank 1" in said
        assert said.count("micro-batch") == 1
    else:  # a summed gradient does not show which rank's it is
        assert "the gradient is not finite, although every rank's loss is" in said
        assert said.count("micro-batch") == 4


def rows_of_rank(
    rank: int, rows: Samples, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> list[list[int]]:
    """Return the rows of each of a rank's micro-batches of 2, as its sampler deals them."""
    config = configs.train_config(
        batch_size_training=2, batching_strategy="padding", enable_fsdp=True
    )
    monkeypatch.setattr(config_utils, "rank", lambda: rank)
    monkeypatch.setattr(config_utils, "world_size", lambda: 2)
    return list(get_dataloader_kwargs(config, rows, tokenizer, "train")["batch_sampler"])


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_one_process_stops_too(
    run_training: Callable[..., Any], make_model: Callable[..., Any], samples: Samples, where: str
) -> None:
    model, calls = make_model(), 0

    def spoil(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        nonlocal calls
        calls += 1
        if calls != 2:
            return None
        if where == "loss":
            return output * float("nan")
        output.register_hook(lambda gradient: gradient * float("nan"))
        return None

    model.get_input_embeddings().register_forward_hook(spoil)
    fields = {"batching_strategy": "padding", "batch_size_training": 4}
    once = run_training(samples[:8], max_train_step=1, **fields).model.state_dict()
    with pytest.raises(RuntimeError, match="training stopped at step 2"):
        run_training(samples[:8], model=model, **fields)
    assert all(value.equal(once[name]) for name, value in model.state_dict().items())
