"""Lets one run at a time write into a folder."""

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
from llama_recipes_local.parallel import is_rank_zero

_held: set[int] = set()


class OccupiedError(TrainingError):
    """Another run writes into the folder; it is the user's mistake."""

    EXIT_CODE = UsageError.EXIT_CODE


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, which is made; a process that dies leaves it free.

    The first rank does for all. The lock is the folder's own, so nothing is written. Some network
    file systems have none: there nothing is kept out.

    Raises:
        OccupiedError: if another run is in it.
    """
    if not is_rank_zero():
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
            raise OccupiedError(_told(folder)) from error


def _unlock(descriptor: int) -> None:
    """Let go at once, whatever a process that is being forked has yet to close."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _told(folder: Path) -> str:
    return (
        f"nothing was started, for another run writes into --output_dir {folder.resolve()}\n"
        "   why: each would remove what the other is writing: checkpoints and metrics.jsonl\n"
        "   fix: wait until it has ended, or name another --output_dir"
    )


def _let_go() -> None:
    """Close in a forked process what it inherits: it may outlive a run that was killed."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
