"""A run that was killed and gone on from is the run that was not, bit by bit."""

from pathlib import Path
from typing import Any

import pytest
from resumable import STEPS, Ended, Runs

from llama_recipes_local.checkpoints.layout import folder_of, read_manifest

# what takes another time in another run; all else of a step is to be the same
TIMED = ("tokens_per_second", "tflops", "mfu", "memory_gib", "data_seconds", "seconds")
# the sixth step is under way, the fifth was saved
KILLED = {"at": "step", "count": 6, "signal": "SIGKILL"}
AUTO = {"resume_from_checkpoint": "auto"}


def untimed(ended: Ended) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in line.items() if name not in TIMED} for line in ended.metrics
    ]


def hashes(ended: Ended) -> dict[str, str]:
    """The hashes of all that is saved of weights, optimiser and generators after the last step."""
    files = read_manifest(folder_of(ended.output, STEPS)).files
    kept = ("model/", "optimizer/", "random/", "adapter_model")
    found = {name: entry.sha256 for name, entry in files.items() if name.startswith(kept)}
    assert {name.split("/")[0] for name in found} >= {"model", "optimizer", "random"}
    return found


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("method", ["whole", "lora"])
def test_killed_and_resumed_is_straight(
    runs: Runs, tmp_path: Path, request: pytest.FixtureRequest, method: str, ranks: int
) -> None:
    flags = request.getfixturevalue(method)
    straight = runs(tmp_path / "straight", flags, ranks)
    assert straight.codes == [0] * ranks, straight.logs
    assert [line["step"] for line in straight.metrics] == list(range(1, STEPS + 1))

    killed = runs(tmp_path / "killed", flags, ranks, KILLED)
    assert killed.codes == [-9] * ranks, killed.logs
    assert killed.checkpoints == [5]
    resumed = runs(tmp_path / "killed", flags | AUTO, ranks)
    assert resumed.codes == [0] * ranks, resumed.logs
    assert "going on after step 5" in resumed.logs[0]

    assert untimed(resumed) == untimed(straight)
    assert resumed.evaluations == straight.evaluations
    assert resumed.samples(ranks) == straight.samples(ranks)
    assert hashes(resumed) == hashes(straight)
