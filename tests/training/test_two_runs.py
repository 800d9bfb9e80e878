"""Several runs in one process, as in a notebook: none leaves anything behind for the next."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HELPER = Path(__file__).parents[1] / "helpers" / "two_runs.py"
# figures of time and memory, and the time in a file's name
CHANGING = (
    r" *[\d,]+ tok/s",
    r" +[\d.]+ tflops",
    r" +[\d.]+ GiB",
    r"left [\d:]+",
    r"--> imports(?: \.\.\.|: [\d.]+ s)\n",
    r"(?<=--> model: )[\d.]+ s",
    r"(?<=--> data: )[\d.]+ s",
    r"(?<=--> first step: )[\d.]+ s",
    r"(?<=in )[\d.]+ s",
    r"(?<= tokens, )[\d:]+ with validation *",
    r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d",
)
FIRST, AGAIN, OTHER, REFUSED, AFTER_OTHERS, OTHER_AGAIN = range(6)
Runs = list[dict[str, Any]]


def constant(text: str) -> str:
    """Return a text without figures that differ from run to run."""
    return re.sub("|".join(CHANGING), "", text)


@pytest.fixture(scope="module")
def left(
    tiny_model: Path,
    grammar_data: Path,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """LoRA twice, in full, a refused one, LoRA and in full again, in one process."""
    folder = tmp_path_factory.mktemp("two-runs")
    command = [sys.executable, HELPER, tiny_model, grammar_data, folder]
    ended = subprocess.run(
        [*map(str, command)], env=environment, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(ended.stdout)
    assert [run["code"] for run in found["runs"]] == [0, 0, 0, 2, 0, 0]
    return found


@pytest.fixture(scope="module")
def runs(left: dict[str, Any]) -> Runs:
    """What each run printed, trained and wrote."""
    return left["runs"]


@pytest.mark.command
@pytest.mark.parametrize(
    ("run", "again"), [(FIRST, AGAIN), (FIRST, AFTER_OTHERS), (OTHER, OTHER_AGAIN)]
)
def test_a_second_run_prints_and_trains_as_the_first(runs: Runs, run: int, again: int) -> None:
    first, second = runs[run], runs[again]
    assert len(first["losses"]) == 4
    assert second["losses"] == first["losses"]
    assert constant(second["said"]).splitlines() == constant(first["said"]).splitlines()
    files = [[constant(name) for name in each["files"]] for each in (first, second)]
    assert files[0] == files[1]


@pytest.mark.command
@pytest.mark.parametrize("run", [FIRST, AGAIN, OTHER, REFUSED, AFTER_OTHERS, OTHER_AGAIN])
def test_a_run_leaves_the_process_as_it_found_it(left: dict[str, Any], run: int) -> None:
    assert left["runs"][run]["state"] == left["before"]


@pytest.mark.command
def test_runs_with_other_flags_are_other_runs(runs: Runs) -> None:
    assert runs[OTHER]["losses"] != runs[FIRST]["losses"]
    assert runs[REFUSED]["files"] == []
