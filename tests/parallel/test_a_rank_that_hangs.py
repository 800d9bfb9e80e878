"""A rank that hangs, as if stopped by SIGSTOP in a step: what the other says, and what ends it."""

import re
from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import Runs

HANGS = {"at": "step", "count": 4, "signal": "SIGSTOP", "ranks": [1]}
# less patience than a user's, so that the tests are short
PATCHES = {
    "parallel.watch:BEAT": 0.1,
    "parallel.watch:SILENT": 1.0,
    "parallel.watch:SAY_AFTER": 0.5,
    "parallel.watch:USUAL_STEPS": 3,
}
SAID = r"in step 4, usually [\d.]+ s: waiting for rank 1, which does not answer"
RESUME = "--resume_from_checkpoint auto"
STOPPED, INTERRUPTED, FAILED = 75, 130, 1


@pytest.fixture(scope="module")
def flags(tiny_run: dict[str, Any]) -> dict[str, Any]:
    return tiny_run | {"use_peft": True, "context_length": 128, "run_validation": False}


@pytest.mark.parametrize(
    ("signals", "within", "code", "text"),
    [
        ("SIGTERM", 1.0, STOPPED, "stopped without saving: this rank waited for rank 1"),
        ("SIGINT SIGINT", 600.0, INTERRUPTED, "SIGINT: saving at the next step"),
    ],
)
def test_the_other_names_it_unprompted_and_a_signal_ends_it(
    runs: Runs,
    flags: dict[str, Any],
    signals: str,
    within: float,
    code: int,
    text: str,
    tmp_path: Path,
) -> None:
    patches = PATCHES | {"training.signals:SAVES_WITHIN": within}
    ended = runs(tmp_path, flags, 2, HANGS, patches=patches, on=(SAID, signals))
    assert ended.codes == [code, -9], ended.logs
    assert re.search(SAID, ended.logs[0])
    assert text in ended.logs[0]
    assert "Traceback" not in ended.logs[0]


def test_a_rank_that_is_waited_for_too_long_is_one_message(
    runs: Runs, flags: dict[str, Any], tmp_path: Path
) -> None:
    flags = flags | {"process_group_timeout": 20}  # no rank is so late before it hangs
    ended = runs(tmp_path, flags, 2, HANGS, patches=PATCHES, on=("stopped in", ""))
    assert ended.codes == [FAILED, -9], ended.logs
    (last,) = ended.logs[0].split("stopped in ")[1:]
    assert last.startswith("step 4: this rank waited for rank 1, which does not answer\n   why: ")
    assert RESUME in last
    assert "Traceback" not in ended.logs[0]
