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
    and leave together, and may all write.
    """
    draft = target.with_name(f".{target.name}.incomplete")
    if is_rank_zero():
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
    barrier()
    yield draft
    barrier()
    if is_rank_zero():
        _sync(draft)
        old = target.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        draft.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    barrier()


@contextmanager
def published_files(target: Path) -> Iterator[Path]:
    """Yield a folder whose files are each renamed into ``target`` at the end of the block.

    For one process. Files of ``target`` that have no successor stay.
    """
    draft = target / ".incomplete"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    yield draft
    _sync(draft)
    for path in sorted(draft.iterdir()):
        os.replace(path, target / path.name)
    draft.rmdir()


def _sync(folder: Path) -> None:
    """Have a folder's files on the disk before a rename makes them count."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
