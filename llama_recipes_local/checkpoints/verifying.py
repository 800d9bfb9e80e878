"""Verifies a checkpoint: no file is missing, has another size, or was changed."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed as dist

from llama_recipes_local.checkpoints.layout import CorruptCheckpointError, FileEntry, read_manifest
from llama_recipes_local.checkpoints.plausibility import check_numbers
from llama_recipes_local.errors import one_line
from llama_recipes_local.parallel import is_rank_zero, rank, world_size
from llama_recipes_local.storage.hashing import contents_hash

THREADS = 4
Entry = tuple[Path, FileEntry]


def check_sizes(folder: Path) -> None:
    """Compare the sizes of a checkpoint's files with its manifest, without reading them.

    Raises:
        CorruptCheckpointError: if its manifest is corrupt, or a file is missing or of another size.
    """
    for path, entry in _entries(folder):
        error = _other_size((path, entry))
        if error:
            raise CorruptCheckpointError(error)


def check_quickly(folder: Path) -> None:
    """Do what ``verify_together`` does, but compare only the sizes of the files of tensors.

    Raises:
        CorruptCheckpointError: naming the first file that is corrupt.
    """
    check_sizes(folder)
    _raise_first(_errors(each for each in _entries(folder) if each[0].suffix == ".json"))
    check_numbers(folder, read_manifest(folder))


def verify(folder: Path) -> None:
    """Read a whole checkpoint and compare each file with the manifest, in this process.

    Raises:
        CorruptCheckpointError: naming the first file that is missing, of another size, or changed.
    """
    _raise_first(_errors(_entries(folder)))


def verify_together(folder: Path) -> None:
    """Do what ``verify`` does, each rank for its share of the files, and check the numbers.

    All ranks call this together.

    Raises:
        CorruptCheckpointError: the same one on all ranks.
    """
    try:
        errors = _errors(_entries(folder)[rank() :: world_size()])
        if not errors and is_rank_zero():
            check_numbers(folder, read_manifest(folder))
    except CorruptCheckpointError as error:
        errors = [str(error)]
    if world_size() > 1:
        gathered: list[Any] = [None] * world_size()
        dist.all_gather_object(gathered, errors)
        errors = [error for part in gathered for error in part]
    _raise_first(errors)


def _entries(folder: Path) -> list[Entry]:
    return [(folder / name, entry) for name, entry in sorted(read_manifest(folder).files.items())]


def _errors(entries: Iterable[Entry]) -> list[str]:
    with ThreadPoolExecutor(THREADS) as pool:
        return [error for error in pool.map(_error, entries) if error]


def _error(item: Entry) -> str:
    return _other_size(item) or _describe(item, _other_content)


def _other_size(item: Entry) -> str:
    def compare(path: Path, entry: FileEntry) -> str:
        size = path.stat().st_size
        return "" if size == entry.size else f"has {size:,} bytes, not {entry.size:,}"

    return _describe(item, compare)


def _other_content(path: Path, entry: FileEntry) -> str:
    return (
        "" if contents_hash(path) == entry.sha256 else "was changed after it was written (sha256)"
    )


def _describe(item: Entry, compare: Callable[[Path, FileEntry], str]) -> str:
    """Return the file and what is wrong with it; an empty text if nothing is."""
    path, entry = item
    try:
        there = path.is_file() or not path.exists()  # a pipe would be waited for
        wrong = compare(path, entry) if there else "is not a file"
    except FileNotFoundError:
        wrong = "is missing"
    except OSError as error:
        wrong = f"cannot be read ({error})"
    return one_line(f"{path} {wrong}") if wrong else ""


def _raise_first(errors: list[str]) -> None:
    if errors:
        raise CorruptCheckpointError(errors[0])
