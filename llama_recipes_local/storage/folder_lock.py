"""Lets one run at a time write to a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llama_recipes_local.errors import Problem, TrainingError, UsageError
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
            raise LockedError(f"nothing was started: {_taken(folder)}") from error
        yield
    finally:
        flock.release(descriptor)


def check_lock(folder: Path) -> list[Problem]:
    """Return the problem that another run writes to a folder at this moment."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # which is reported elsewhere, or there is no folder yet
        return []
    try:
        flock.check(descriptor)
    except flock.TakenError:
        return [_taken(folder)]
    finally:
        os.close(descriptor)
    return []


def _taken(folder: Path) -> Problem:
    return Problem(
        f"another run writes into --output_dir {folder.resolve()}",
        "each would remove what the other is writing: checkpoints and metrics.jsonl",
        "wait until it has finished, or choose another --output_dir",
    )
