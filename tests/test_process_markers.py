"""Starting a process takes a marker, so that the tests without one stay quick."""

import subprocess
import sys

import pytest

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--help"]


def test_python_is_not_started_without_a_marker() -> None:
    with pytest.raises(pytest.fail.Exception, match="mark it install or ranks or command"):
        subprocess.run([sys.executable, "--version"])


@pytest.mark.command
def test_ranks_are_not_launched_without_their_marker() -> None:
    with pytest.raises(pytest.fail.Exception, match="mark it ranks"):
        subprocess.run(LAUNCH)


@pytest.mark.command
def test_a_marked_test_starts_python() -> None:
    assert subprocess.run([sys.executable, "-c", ""]).returncode == 0


def test_fixtures_mark_the_tests_that_use_them(
    request: pytest.FixtureRequest, environment: dict[str, str]
) -> None:
    assert [marker.name for marker in request.node.iter_markers()] == ["command"]


def test_other_programs_take_no_marker() -> None:
    assert subprocess.run(["true"]).returncode == 0
