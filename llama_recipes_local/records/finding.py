"""Finds a data set's files where a clone or a download left them, and describes what is there."""

import os
from pathlib import Path

from llama_recipes_local.errors import Problem, refusal
from llama_recipes_local.messages import join_names
from llama_recipes_local.records.source import compression
from llama_recipes_local.storage.names import natural_key

# Every pointer file begins with this, and no data file does.
POINTER_START = b"version https://git-lfs."

DEEPEST = 100
"""Levels of folders below one that is named."""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, as ``.git`` and ``.cache`` are."""
    return name.startswith(".")


def files_below(folder: Path) -> list[Path]:
    """Return the files in a folder and its subfolders, in natural order, without hidden ones.

    Raises:
        UsageError: if folders are nested deeper than data is.
    """
    found: list[Path] = []
    walked: set[str] = set()
    top = os.fspath(folder).count(os.sep)
    for parent, folders, names in os.walk(folder, followlinks=True):
        if parent.count(os.sep) - top > DEEPEST:
            why = f"below it are folders in folders, more than {DEEPEST} levels of them"
            raise refusal(f"{folder} is nested too deeply", why, "name the folder of the data")
        real = os.path.realpath(parent)
        # links to folders are followed, but one that leads back up would never end
        new = real not in walked
        walked.add(real)
        folders[:] = [name for name in folders if new and not is_hidden(name)]
        found += [Path(parent, name) for name in names if new and not is_hidden(name)]
    # unlike Path.is_file, it says no where a folder may not be read
    files = [path for path in found if os.path.isfile(path)]
    return sorted(files, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def without_compressed_copies(paths: list[Path]) -> list[Path]:
    """Return the paths without compressed files whose uncompressed file is also among them."""
    known = set(paths)
    return [path for path in paths if not (_is_compressed(path) and _uncompressed(path) in known)]


def describe_files(folder: Path) -> str:
    """Name the first few of the files in a folder and its subfolders."""
    names = (path.relative_to(folder).as_posix() for path in files_below(folder))
    return f"it holds {join_names(names)}"


def pointer_problems(paths: list[Path]) -> list[Problem]:
    """Return a problem for each file that a clone without Git LFS left as a pointer to its data."""
    return [
        Problem(
            f"{path} is a pointer of Git LFS, not the data",
            "the folder was cloned without Git LFS, which fetches large files",
            f"git lfs install && git -C {path.parent} lfs pull",
        )
        for path in paths
        if _starts_as_pointer(path)
    ]


def _is_compressed(path: Path) -> bool:
    return compression(path.name) != ""


def _uncompressed(path: Path) -> Path:
    return path.with_name(path.name[: -len(compression(path.name))])


def _starts_as_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(POINTER_START)) == POINTER_START
    except OSError:  # reported when the file is read
        return False
