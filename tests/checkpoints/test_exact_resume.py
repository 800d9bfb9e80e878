"""A run that was killed and resumed equals the uninterrupted run, bit by bit."""

from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import STEPS, Ended, Runs

from llama_recipes_local.checkpoints.layout import folder_of, read_manifest

# what takes another time in another run; all else of a step is to be the same
TIMED = ("tokens_per_second", "tflops", "mfu", "memory_gib", "data_seconds", "seconds")
# the fifth step was saved; the sixth ended an epoch, so it is logged, and validated; the eighth is
# under way
KILLED = {"at": "step", "count": 8, "signal": "SIGKILL"}
# the seventh as well where steps are so slow that a line is due after it
LAST_LOGGED = (6, 7)
AUTO = {"resume_from_checkpoint": "auto"}
PADDING = 2  # the tiny model's token


def untimed(ended: Ended) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in line.items() if name not in TIMED} for line in ended.metrics
    ]


def hashes(ended: Ended) -> dict[str, str]:
    """The hashes of all that is saved of weights, optimiser and RNG state after the last step."""
    files = read_manifest(folder_of(ended.output, STEPS)).files
    kept = ("model/", "optimizer/", "random/", "adapter_model")
    found = {name: entry.sha256 for name, entry in files.items() if name.startswith(kept)}
    assert {name.split("/")[0] for name in found} >= {"model", "optimizer", "random"}
    return found


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("method", ["full", "lora", "quantized"])
def test_killed_and_resumed_equals_uninterrupted(
    runs: Runs, tmp_path: Path, request: pytest.FixtureRequest, method: str, ranks: int
) -> None:
    flags = request.getfixturevalue(method)
    straight = runs(tmp_path / "straight", flags, ranks)
    assert straight.codes == [0] * ranks, straight.logs
    assert [line["step"] for line in straight.metrics] == list(range(1, STEPS + 1))

    killed = runs(tmp_path / "killed", flags, ranks, KILLED)
    assert killed.codes == [-9] * ranks, killed.logs
    assert killed.checkpoints == [5]
    assert killed.evaluations[-1]["step"] == 6
    assert killed.metrics[-1]["step"] in LAST_LOGGED
    resumed = runs(tmp_path / "killed", flags | AUTO, ranks)
    assert resumed.codes == [0] * ranks, resumed.logs
    assert "resumed at step 5" in resumed.logs[0]

    assert untimed(resumed) == untimed(straight)
    assert resumed.evaluations == straight.evaluations
    assert resumed.samples(ranks) == straight.samples(ranks)
    assert hashes(resumed) == hashes(straight)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_other_numbers_of_ranks_see_the_same_samples_and_loss(
    runs: Runs, tmp_path: Path, request: pytest.FixtureRequest, method: str
) -> None:
    """Two ranks, then one, then four, against one all along; dropout would draw other numbers."""
    flags = request.getfixturevalue(method) | {"lora_dropout": 0.0, "save_steps": 4}
    flags["model_name"] = str(request.getfixturevalue("tiny_model"))
    if method == "full":
        del flags["lora_dropout"]
    straight = runs(tmp_path / "straight", flags)
    for ranks, count in ((2, 5), (1, 5), (5, 0)):
        trigger = {"at": "step", "count": count, "signal": "SIGKILL"} if count else None
        resume = {} if ranks == 2 else AUTO
        ended = runs(tmp_path / "moved", flags | resume, ranks, trigger)
        assert ended.codes == [-9 if count else 0] * ranks, ended.logs

    assert "resumed on 5" in ended.logs[0]
    assert sorted_rows(ended.samples(5)) == sorted_rows(straight.samples(1))
    ours, theirs = ended.metrics, straight.metrics
    assert [line["step"] for line in ours] == list(range(1, STEPS + 1))
    assert [line["lr"] for line in ours] == [line["lr"] for line in theirs]
    assert [line["label_tokens"] for line in ours] == [line["label_tokens"] for line in theirs]
    # sums of float32 in another order differ by some 1e-7 of themselves, and the steps after them
    # carry that on; the losses that differ by a step are 1e-3 and more apart
    expected = [line["loss"] for line in theirs]
    assert [line["loss"] for line in ours] == pytest.approx(expected, rel=1e-5)


def sorted_rows(samples: dict[int, list[list[int]]]) -> dict[int, list[list[int]]]:
    """The rows of each step in one order, without the padding, which is a micro-batch's own."""
    return {
        step: sorted([token for token in row if token != PADDING] for row in rows)
        for step, rows in samples.items()
    }


def test_a_mixture_is_resumed_exactly(runs: Runs, lora: dict[str, Any], tmp_path: Path) -> None:
    """Packed rows of two sources, one of them repeated, on two ranks."""
    rows = [f'{{"prompt": "{n} and ", "completion": "{n} more"}}\n' for n in range(40)]
    (tmp_path / "own.jsonl").write_text("".join(rows))
    flags = lora | {
        "dataset": f"grammar_dataset:1,{tmp_path}/own.jsonl:1",
        "batching_strategy": "packing",
        "context_length": 64,
        "save_steps": 2,
        "num_epochs": 1,
        "eval_steps": 3,
    }
    straight = runs(tmp_path / "straight", flags, 2)
    assert straight.codes == [0, 0], straight.logs
    assert straight.metrics[-1]["step"] > 4
    killed = {"at": "step", "count": 4, "signal": "SIGKILL"}
    assert runs(tmp_path / "killed", flags, 2, killed).codes == [-9, -9]
    resumed = runs(tmp_path / "killed", flags | AUTO, 2)
    assert resumed.codes == [0, 0], resumed.logs
    assert "resumed at step 2" in resumed.logs[0]
    assert untimed(resumed) == untimed(straight)
    assert resumed.samples(2) == straight.samples(2)
    assert resumed.evaluations == straight.evaluations
    sources = ("grammar_dataset", "own.jsonl")
    assert {f"loss/{name}" for name in sources} < set(resumed.evaluations[-1])
    for line in straight.metrics:
        present = [name for name in sources if f"loss/{name}" in line]
        counts = [line[f"label_tokens/{name}"] for name in present]
        assert sum(counts) == line["label_tokens"]
        parts = [line[f"loss/{name}"] for name in present]
        total = sum(loss * count for loss, count in zip(parts, counts, strict=True))
        assert total / line["label_tokens"] == pytest.approx(line["loss"], rel=1e-6)
    said = [_training_loss(each.logs[0]) for each in (straight, resumed)]
    assert said[0] == said[1] != ""


def _training_loss(log: str) -> str:
    """Return what a run's last box says of the sources' losses."""
    lines = [line for line in log.splitlines() if "training loss" in line]
    return lines[-1] if lines else ""
