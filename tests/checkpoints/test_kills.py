"""Nothing is lost: killed at any moment, or on a disk that fills up, a run can be resumed.

``KILLS=40 python -m pytest tests/checkpoints/test_kills.py`` kills as often as that.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import STEPS, Ended, Runs, lines
from test_exact_resume import AUTO, hashes, untimed

from llama_recipes_local.checkpoints import layout, verifying

KILLS = int(os.environ.get("KILLS", "4"))
EVERY_STEP = {"save_steps": 1, "save_total_limit": 3, "max_eval_step": 2}
DISK_FULL = 1


@pytest.fixture(scope="module")
def flags(lora: dict[str, Any]) -> dict[str, Any]:
    return lora | EVERY_STEP


@pytest.fixture(scope="module")
def straight(runs: Runs, flags: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Ended:
    ended = runs(tmp_path_factory.mktemp("straight"), flags)
    assert ended.codes == [0], ended.logs
    return ended


def steps_taken(output: Path) -> int:
    path = output / "logs" / "samples-0.jsonl"
    return max((line["step"] for line in lines(path)), default=0) if path.exists() else 0


def intact(output: Path) -> list[int]:
    """The steps of the checkpoints; all of them are intact."""
    folders = layout.checkpoints_in(output)
    for folder in folders:
        verifying.verify(folder)
    return [step for folder in folders if (step := layout.step_of(folder)) is not None]


def assert_resumes(runs: Runs, output: Path, flags: dict[str, Any], straight: Ended) -> None:
    resumed = runs(output, flags | AUTO)
    assert resumed.codes == [0], resumed.logs
    assert "skipped: corrupt" not in resumed.logs[0]
    assert untimed(resumed) == untimed(straight)
    assert resumed.evaluations == straight.evaluations
    assert resumed.samples(1) == straight.samples(1)
    assert hashes(resumed) == hashes(straight)
    assert resumed.checkpoints[-1] == STEPS
    assert not list(output.glob(".checkpoint-*"))


@pytest.mark.timeout(60 * KILLS + 900)
def test_killed_at_random_moments(
    runs: Runs, flags: dict[str, Any], straight: Ended, tmp_path: Path
) -> None:
    """Every second time, what is killed saves while it trains."""
    length = straight.metrics[-1]["seconds"]
    moments = random.Random(0)
    found = []
    for kill in range(KILLS):
        output = tmp_path / "killed"
        after = moments.uniform(0, length)
        asynchronous = {"async_save": kill % 2 == 1}
        killed = runs(output, flags | asynchronous, 1, {"after": after})
        taken, saved = steps_taken(output), intact(output)
        found.append(max(saved, default=0))
        # the step at hand and, asynchronously, the one that was being written
        assert found[-1] >= taken - 1 - asynchronous["async_save"], killed.logs
        if killed.codes == [-9]:
            assert_resumes(runs, output, flags | asynchronous, straight)
        shutil.rmtree(output)
    print(f"{KILLS} kills; the newest checkpoints were of steps {sorted(found)}")
    assert KILLS < 10 or len(set(found)) > 5


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_write_that_fails_in_the_middle(
    runs: Runs, flags: dict[str, Any], straight: Ended, tmp_path: Path, asynchronous: bool
) -> None:
    moments = random.Random(1)
    flags = flags | {"async_save": asynchronous}
    size = size_of_a_checkpoint(straight)
    for _ in range(max(KILLS // 4, 1)):
        output = tmp_path / "full"
        room = int(moments.uniform(0, (STEPS - 2) * size))
        stopped = runs(output, flags, 1, {"bytes": room})
        assert_stopped_with_one_message(stopped)
        assert_resumes(runs, output, flags, straight)
        shutil.rmtree(output)


def size_of_a_checkpoint(ended: Ended) -> int:
    manifest = layout.read_manifest(layout.folder_of(ended.output, STEPS))
    return sum(entry.size for entry in manifest.files.values())


def test_a_write_that_fails_on_one_rank_of_two(
    runs: Runs, flags: dict[str, Any], straight: Ended, tmp_path: Path
) -> None:
    room = size_of_a_checkpoint(straight)  # of which this rank writes a half
    stopped = runs(tmp_path, flags, 2, {"bytes": room, "ranks": [1]})
    assert stopped.codes == [DISK_FULL] * 2, stopped.logs
    assert stopped.logs[0].count("could not be written") == 1
    assert intact(tmp_path)
    assert not list(tmp_path.glob(".checkpoint-*"))


def test_a_full_disk_that_one_rank_of_two_meets_in_the_loop(
    runs: Runs, flags: dict[str, Any], tmp_path: Path
) -> None:
    full, grace = {"lines": 4, "ranks": [0]}, "parallel.watch:GRACE"
    last = {"patches": {grace: 1.0}}  # it hears of the first's end after that waits no longer
    flags = flags | {"save_steps": 2}
    patches = {grace: 0.2, "parallel.peers:SETTLE": 600.0}  # on a busy machine too
    stopped = runs(tmp_path, flags, 2, full, patches=patches, last=last)
    assert stopped.codes == [DISK_FULL] * 2, stopped.logs
    for log in stopped.logs:  # the ranks print elsewhere, so each says it
        assert log.count("stopped: no space left on device") == 1
        assert "Traceback" not in log
    assert "on rank 0: stopped: no space left" in stopped.logs[1]
    assert intact(tmp_path) == [4, 2]
    assert not list(tmp_path.glob(".checkpoint-*"))


@pytest.fixture
def small_disk(straight: Ended, tmp_path: Path) -> Iterator[Path]:
    """A disk with room for half a run's checkpoints, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = size_of_a_checkpoint(straight) * STEPS // 2
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up(
    runs: Runs, flags: dict[str, Any], straight: Ended, small_disk: Path
) -> None:
    output = small_disk / "output"
    all_kept = flags | {"save_total_limit": 0}
    stopped = runs(output, all_kept)
    assert_stopped_with_one_message(stopped)
    kept = intact(output)
    assert len(kept) > 1
    for folder in layout.checkpoints_in(output)[1:]:
        shutil.rmtree(folder)
    assert_resumes(runs, output, flags | {"save_total_limit": 1}, straight)


def assert_stopped_with_one_message(stopped: Ended) -> None:
    assert stopped.codes == [DISK_FULL], stopped.logs
    said = stopped.logs[0]
    assert "Traceback" not in said
    assert said.count("could not be written") == 1
    assert "no space left on device" in said or "bytes, " in said
    assert str(stopped.output) in said
    assert not list(stopped.output.glob(".checkpoint-*"))
    saved = intact(stopped.output)
    assert max(saved, default=0) >= steps_taken(stopped.output) - 2
