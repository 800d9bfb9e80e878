"""Signals: saved at the next step boundary on all ranks together, an exit code of its own."""

from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import STEPS, Runs
from test_exact_resume import AUTO, hashes, untimed

TEMPORARY_FAILURE = 75


@pytest.fixture(scope="module")
def straight(
    runs: Runs, lora: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Any]:
    """The run that nothing interrupts, by its number of ranks."""
    ended = {n: runs(tmp_path_factory.mktemp("straight"), lora, n) for n in (1, 2)}
    assert [each.codes for each in ended.values()] == [[0], [0, 0]]
    return ended


# one of two ranks gets the signal; six batches are asked for to validate before training, and six
# more after the first six steps
@pytest.mark.parametrize(
    ("ranks", "at", "count", "name", "saved"),
    [
        (1, "step", 6, "SIGUSR1", [5, 6]),
        (1, "evaluation", 9, "SIGINT", [5, 6]),
        (1, "saving", 2, "SIGTERM", [5]),
        (2, "step", 4, "SIGTERM", [4]),
        (2, "evaluation", 9, "SIGTERM", [5, 6]),
        (2, "saving", 2, "SIGTERM", [5]),
    ],
)
def test_a_signalled_run_is_saved_and_resumed(
    runs: Runs,
    lora: dict[str, Any],
    straight: dict[int, Any],
    tmp_path: Path,
    ranks: int,
    at: str,
    count: int,
    name: str,
    saved: list[int],
) -> None:
    trigger = {"at": at, "count": count, "signal": name, "ranks": [ranks - 1]}
    stopped = runs(tmp_path, lora, ranks, trigger)
    assert stopped.codes == [TEMPORARY_FAILURE] * ranks, stopped.logs
    assert stopped.checkpoints == saved
    assert f"saved in {tmp_path / f'checkpoint-{saved[-1]}'}" in stopped.logs[0]
    assert not list(tmp_path.glob(".checkpoint-*"))

    resumed = runs(tmp_path, lora | AUTO, ranks)
    assert resumed.codes == [0] * ranks, resumed.logs
    assert untimed(resumed) == untimed(straight[ranks])
    assert resumed.evaluations == straight[ranks].evaluations
    assert resumed.samples(ranks) == straight[ranks].samples(ranks)
    assert hashes(resumed) == hashes(straight[ranks])


def test_before_the_first_step_there_is_nothing_to_save(
    runs: Runs, lora: dict[str, Any], tmp_path: Path
) -> None:
    trigger = {"at": "evaluation", "count": 3, "signal": "SIGTERM"}
    stopped = runs(tmp_path, lora, 1, trigger)
    assert stopped.codes == [TEMPORARY_FAILURE]
    assert stopped.checkpoints == []
    assert "nothing to save" in stopped.logs[0]


def test_a_second_interrupt_stops_at_once(runs: Runs, lora: dict[str, Any], tmp_path: Path) -> None:
    trigger = {"at": "step", "count": 4, "signal": "SIGINT SIGINT"}
    stopped = runs(tmp_path, lora, 1, trigger)
    assert stopped.codes == [-2]
    assert stopped.checkpoints == []
    assert len(stopped.metrics) < STEPS
