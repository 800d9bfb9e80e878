"""Lets one run at a time write to a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llama_recipes_local.errors import TrainingError, UsageError
from llama_recipes_local.storage import flock


class LockedError(TrainingError):
    """Another run writes to the folder, which is a user's mistake."""

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
    try:
        try:
            flock.take(descriptor)
        except flock.TakenError as error:
            raise LockedError(_message(folder)) from error
        yield
    finally:
        flock.release(descriptor)


def _message(folder: Path) -> str:
    return (
        f"nothing was started: another run writes into --output_dir {folder.resolve()}\n"
        "   why: each would remove what the other is writing: checkpoints and metrics.jsonl\n"
        "   fix: wait until it has finished, or choose another --output_dir"
    )
