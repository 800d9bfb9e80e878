"""Finds what is damaged in a checkpoint: a file that is missing, of another size, or changed."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed as dist

from llama_recipes_local.checkpoints.layout import DamagedError, FileEntry, read_manifest
from llama_recipes_local.parallel import rank, world_size
from llama_recipes_local.storage.hashing import contents_hash

THREADS = 4
Entry = tuple[Path, FileEntry]


def check_sizes(folder: Path) -> None:
    """Look at a checkpoint without reading it.

    Raises:
        DamagedError: if its manifest is damaged, or a file is missing or of another size.
    """
    for path, entry in _entries(folder):
        damage = _other_size((path, entry))
        if damage:
            raise DamagedError(damage)


def check(folder: Path) -> None:
    """Read a whole checkpoint and compare each file with the manifest, in this process alone.

    Raises:
        DamagedError: naming the first file that is missing, of another size, or changed.
    """
    _raise_first(_damages(_entries(folder)))


def check_together(folder: Path) -> None:
    """Do what ``check`` does, each rank with its share of the files; all ranks call this together.

    Raises:
        DamagedError: on all ranks alike.
    """
    try:
        damages = _damages(_entries(folder)[rank() :: world_size()])
    except DamagedError as error:
        damages = [str(error)]
    if world_size() > 1:
        gathered: list[Any] = [None] * world_size()
        dist.all_gather_object(gathered, damages)
        damages = [damage for part in gathered for damage in part]
    _raise_first(damages)


def _entries(folder: Path) -> list[Entry]:
    return [(folder / name, entry) for name, entry in sorted(read_manifest(folder).files.items())]


def _damages(entries: Iterable[Entry]) -> list[str]:
    with ThreadPoolExecutor(THREADS) as pool:
        return [damage for damage in pool.map(_damage, entries) if damage]


def _damage(item: Entry) -> str:
    return _other_size(item) or _told(item, _other_content)


def _other_size(item: Entry) -> str:
    def compare(path: Path, entry: FileEntry) -> str:
        size = path.stat().st_size
        return "" if size == entry.size else f"has {size:,} bytes, not {entry.size:,}"

    return _told(item, compare)


def _other_content(path: Path, entry: FileEntry) -> str:
    return "" if contents_hash(path) == entry.sha256 else "is not what was written (sha256)"


def _told(item: Entry, compare: Callable[[Path, FileEntry], str]) -> str:
    """Name the file and what is wrong with it; return nothing if nothing is."""
    path, entry = item
    try:
        wrong = compare(path, entry)
    except FileNotFoundError:
        wrong = "is missing"
    except OSError as error:
        wrong = f"cannot be read ({error})"
    return f"{path} {wrong}" if wrong else ""


def _raise_first(damages: list[str]) -> None:
    if damages:
        raise DamagedError(damages[0])
