"""Makes files appear whole or not at all: written beside their place, then renamed into it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llama_recipes_local.parallel import barrier, is_rank_zero


@contextmanager
def published_folder(target: Path) -> Iterator[Path]:
    """Yield a folder that takes ``target``'s place when all ranks have left the block.

    What was in ``target`` before is removed only once the new folder stands there. All ranks enter
    and leave together, and may all write. Where the block fails nothing is left of it, for a draft
    of many gigabytes may be what fills the disk.
    """
    draft = draft_of(target)
    if is_rank_zero():
        begin_draft(target)
    barrier()
    try:
        yield draft
    except BaseException:
        if is_rank_zero():
            shutil.rmtree(draft, ignore_errors=True)
        raise
    barrier()
    if is_rank_zero():
        _sync_files(draft)
        publish(draft, target)
    barrier()


@contextmanager
def published_files(target: Path) -> Iterator[Path]:
    """Yield a folder whose files are each renamed into ``target`` at the end of the block.

    For one process. Files of ``target`` that have no successor stay.
    """
    draft = target / ".incomplete"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        _sync_files(draft)
        for path in sorted(draft.iterdir()):
            os.replace(path, target / path.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    sync_folder(target)


def draft_of(target: Path) -> Path:
    """Return the folder that ``target`` is written in before it is published."""
    return target.with_name(f".{target.name}.incomplete")


def begin_draft(target: Path) -> Path:
    """Make the empty folder that ``target`` is written in; one process does."""
    draft = draft_of(target)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    return draft


def publish(draft: Path, target: Path) -> None:
    """Rename a folder into its place; one process does, once all files are on the disk."""
    for folder in (draft, *(path for path in draft.rglob("*") if path.is_dir())):
        sync_folder(folder)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    draft.rename(target)
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Have a folder's entries on the disk: without that, a crash may undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_files(folder: Path) -> None:
    """Have a folder's files on the disk before a rename makes them count."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
