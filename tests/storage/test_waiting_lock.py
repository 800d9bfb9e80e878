"""Processes wait for a lock file, and are told whose it is."""

import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llama_recipes_local.storage import flock, waiting_lock
from llama_recipes_local.storage.waiting_lock import waited_for


@contextmanager
def other_process(work: Callable[[], object]) -> Iterator[int]:
    """Run work in a forked process until the block ends."""
    process = os.fork()
    if process == 0:
        try:
            work()
        finally:
            os._exit(0)
    try:
        yield process
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def hold(path: Path, held: Path, until: Path) -> None:
    with waited_for(path, "it"):
        held.touch()
        appears(until)


def appears(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def test_who_waits_is_told_for_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, held, told = (tmp_path / name for name in ("lock", "held", "told"))
    lines: list[str] = []

    def tell(line: str, flush: bool) -> None:
        lines.append(line)
        if line.startswith("   lock"):
            told.touch()

    monkeypatch.setattr(waiting_lock, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(waiting_lock, "print", tell, raising=False)
    with other_process(lambda: hold(lock, held, told)) as holder:
        appears(held)
        with waited_for(lock, "the tokens") as locked:
            assert locked
    said, where = lines
    assert said.startswith("--> waiting for the tokens: process ")
    assert f"process {holder} on {socket.gethostname()} holds the lock since 2" in said
    assert where == f"   lock: {lock}"
    assert lock.read_text() == ""


def test_a_short_wait_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock, held, waited = (tmp_path / name for name in ("lock", "held", "waited"))
    take = flock.take

    def take_and_note(descriptor: int) -> bool:
        try:
            return take(descriptor)
        except flock.TakenError:
            waited.touch()
            raise

    monkeypatch.setattr(waiting_lock, "SILENT_SECONDS", 600.0)
    with other_process(lambda: hold(lock, held, waited)):
        appears(held)
        monkeypatch.setattr(flock, "take", take_and_note)
        with waited_for(lock, "it"):
            pass
    assert waited.exists()
    assert capsys.readouterr().out == ""


def test_a_killed_process_leaves_no_lock_though_its_child_lives(tmp_path: Path) -> None:
    lock, child = tmp_path / "lock", tmp_path / "child"

    def hold_with_a_child() -> None:
        with waited_for(lock, "it"):
            if os.fork() == 0:
                child.write_text(str(os.getpid()))
                os.rename(child, tmp_path / "ready")
            signal.pause()

    with other_process(hold_with_a_child):
        appears(tmp_path / "ready")
    try:
        with waited_for(lock, "it") as locked:
            assert locked
    finally:
        os.kill(int((tmp_path / "ready").read_text()), signal.SIGKILL)


def test_a_lock_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "private").write_text("kept")
    (tmp_path / "lock").symlink_to("private")
    with pytest.raises(OSError, match="symbolic links"), waited_for(tmp_path / "lock", "it"):
        pass
    assert (tmp_path / "private").read_text() == "kept"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_locks_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(flock.fcntl, "flock", refuse)
    with waited_for(tmp_path / "lock", "it") as locked:
        assert not locked


@pytest.mark.parametrize("number", waiting_lock.READ_ONLY)
def test_another_users_lock_is_locked_without_writing_into_it(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a folder that may only be read; root, who runs tests, may write everywhere."""
    open_file = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_RDWR:
            raise OSError(number, "not yours")
        return open_file(path, flags, mode)

    lock = tmp_path / "lock"
    lock.write_text("theirs")
    monkeypatch.setattr(os, "open", refuse)
    with waited_for(lock, "it") as locked:
        assert locked
    assert lock.read_text() == "theirs"
    lock.unlink()
    with waited_for(lock, "it") as locked:
        assert not locked
