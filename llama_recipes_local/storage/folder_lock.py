"""Lets one run at a time write to a folder."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

from llama_recipes_local.errors import TrainingError, UsageError

_held: set[int] = set()


class LockedError(TrainingError):
    """Another run writes to the folder; it is the user's mistake."""

    EXIT_CODE = UsageError.EXIT_CODE


@contextmanager
def locked(folder: Path, main_process: bool = True) -> Iterator[None]:
    """Keep other runs out of a folder, which is created; a process that dies releases it.

    The lock is the folder's own (``flock``), so nothing is written. Some network file systems
    have none: there nothing is kept out.

    Args:
        folder: the folder to lock.
        main_process: whether this process locks it; one of a run's processes does for all.

    Raises:
        LockedError: if another run holds the lock.
    """
    if not main_process:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    _held.add(descriptor)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        _held.discard(descriptor)
        _unlock(descriptor)
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise LockedError(_message(folder)) from error


def _unlock(descriptor: int) -> None:
    """Release the lock at once, whatever a process that is being forked has yet to close."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _message(folder: Path) -> str:
    return (
        f"nothing was started: another run writes into --output_dir {folder.resolve()}\n"
        "   why: each would remove what the other is writing: checkpoints and metrics.jsonl\n"
        "   fix: wait until it has finished, or choose another --output_dir"
    )


def _release_inherited() -> None:
    """Close the descriptors that a forked process inherits: it may outlive a killed run."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_inherited)
