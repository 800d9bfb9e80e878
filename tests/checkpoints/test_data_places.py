"""Runs whose data comes from workers, packed, or as a stream also resume exactly."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import STEPS, Runs
from test_exact_resume import AUTO, KILLED, hashes, untimed

# the stream's rows are read more than twice
WAYS: dict[str, dict[str, Any]] = {
    "workers": {"num_workers_dataloader": 1, "eval_steps": 4},
    "packed": {"batching_strategy": "packing", "attn_implementation": "documents"},
    "stream": {
        "dataset": "local_dataset",
        "streaming": True,
        "max_train_step": STEPS,
        "max_eval_step": 2,
    },
}


@pytest.fixture
def rows(grammar_data: Path, tmp_path: Path) -> Path:
    """The training sentences as plain text."""
    with (grammar_data / "datasets/grammar/gtrain_10k.csv").open(encoding="utf-8-sig") as file:
        sentences = [row["target"] for row in csv.DictReader(file)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": sentence}) + "\n" for sentence in sentences))
    return path


@pytest.mark.parametrize("way", WAYS)
def test_killed_and_resumed_equals_uninterrupted(
    runs: Runs, lora: dict[str, Any], rows: Path, tmp_path: Path, way: str
) -> None:
    flags = lora | WAYS[way] | {"lora_dropout": 0.1}
    if way == "stream":
        flags["data_path"] = str(rows)
    straight = runs(tmp_path / "straight", flags)
    assert straight.codes == [0], straight.logs
    killed = runs(tmp_path / "killed", flags, 1, KILLED)
    assert killed.codes == [-9], killed.logs
    resumed = runs(tmp_path / "killed", flags | AUTO)
    assert resumed.codes == [0], resumed.logs
    assert untimed(resumed) == untimed(straight)
    assert resumed.evaluations == straight.evaluations
    assert resumed.samples(1) == straight.samples(1)
    assert max(resumed.checkpoints) == max(straight.checkpoints)
    if max(straight.checkpoints) == STEPS:
        assert hashes(resumed) == hashes(straight)
