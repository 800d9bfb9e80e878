"""Finds a data set's files where a clone or a download left them, and tells what is there."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from llama_recipes_local.errors import Problem
from llama_recipes_local.records.text_lines import compression

# The one thing in each pointer file that no data file begins with.
POINTER_START = b"version https://git-lfs."
TOLD_NAMES = 10


def natural_key(name: str) -> tuple[str, str]:
    """Return a sort key that puts part 2 before part 10."""
    return re.sub("[0-9]+", lambda number: number[0].zfill(20), name), name


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is there for a program, as ``.git`` and ``.cache`` are."""
    return name.startswith(".")


def files_below(folder: Path) -> list[Path]:
    """Return the files in a folder and its folders, in natural order; hidden ones are left out."""
    found: list[Path] = []
    walked: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        # a link to a folder is followed, but one that leads back up would never end
        new = real not in walked
        walked.add(real)
        folders[:] = [name for name in folders if new and not is_hidden(name)]
        found += [Path(parent, name) for name in names if new and not is_hidden(name)]
    files = [path for path in found if path.is_file()]
    return sorted(files, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def without_packed_twins(paths: list[Path]) -> list[Path]:
    """Return the paths but for the compressed files that lie beside what they were packed from."""
    known = set(paths)
    return [path for path in paths if not (_is_packed(path) and _unpacked(path) in known)]


def told(folder: Path) -> str:
    """Say which files a folder holds, the first few by name."""
    return f"it holds {listed(path.relative_to(folder).as_posix() for path in files_below(folder))}"


def listed(names: Iterable[str]) -> str:
    """Return the first few names and how many more there are."""
    known = list(names)
    rest = f" and {len(known) - TOLD_NAMES} more" if len(known) > TOLD_NAMES else ""
    return f"{', '.join(known[:TOLD_NAMES])}{rest}" or "nothing"


def listing(folder: Path) -> str:
    """Say what is found in a folder, but not below it."""
    if not folder.is_dir():
        return f"{folder} does not exist"
    return f"{folder} holds {listed(sorted(entry.name for entry in folder.iterdir()))}"


def missing(path: Path, fix: str) -> Problem:
    """Return the problem with a path that leads nowhere."""
    parent = path.parent
    if parent.is_dir():
        beside = listed(sorted((entry.name for entry in parent.iterdir()), key=natural_key))
        return Problem(f"{path} does not exist", f"{parent} holds {beside}", fix)
    return Problem(f"{path} does not exist", f"neither does {parent}", fix)


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


def _is_packed(path: Path) -> bool:
    return compression(path.name) != ""


def _unpacked(path: Path) -> Path:
    return path.with_name(path.name[: -len(compression(path.name))])


def _starts_as_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(POINTER_START)) == POINTER_START
    except OSError:  # told when the file is read
        return False
