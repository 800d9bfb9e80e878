"""Finds a data set's files where a clone or a download left them, and describes what is there."""

import contextlib
import fnmatch
import glob
import os
from pathlib import Path

from llama_recipes_local.errors import Problem, UsageError, refusal
from llama_recipes_local.messages import join_names
from llama_recipes_local.records.source import compression
from llama_recipes_local.storage.names import natural_key

# Every pointer file begins with this, and no data file does.
POINTER_START = b"version https://git-lfs."

DEEPEST = 100
"""Levels of folders below one that is named."""
MOST = 250_000
"""Files below it, and folders."""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, as ``.git`` and ``.cache`` are."""
    return name.startswith(".")


def files_below(folder: Path) -> list[Path]:
    """Return the files in a folder and its subfolders, in natural order, without hidden ones.

    Links to folders are followed, each folder once.

    Raises:
        UsageError: if folders are nested deeper than data is, hold more files, or are unreadable.
    """
    found: list[str] = []
    walked: set[str] = set()
    waiting = [("", 0)]
    while waiting:
        inner, depth = waiting.pop()
        if depth > DEEPEST:
            why = f"below it are folders in folders, more than {DEEPEST} levels of them"
            raise refusal(f"{folder} is nested too deeply", why, "name the folder of the data")
        place = os.path.join(folder, inner)
        real = os.path.realpath(place)
        # a link that leads back up would never end
        if real in walked:
            continue
        walked.add(real)
        for entry in _entries(place):
            name = os.path.join(inner, entry.name)
            # a link that leads to itself is neither, as one that leads nowhere
            with contextlib.suppress(OSError):
                if entry.is_dir():
                    waiting.append((name, depth + 1))
                elif entry.is_file():
                    found.append(name)
        if max(len(found), len(walked) + len(waiting)) > MOST:
            why = f"it holds more than {MOST:,} files or folders, as no folder of data alone does"
            fix = "name the folder of the data, or a file"
            raise refusal(f"{folder} is too large to search", why, fix)
    return [folder / name for name in sorted(found, key=natural_key)]


def _entries(place: str) -> list[os.DirEntry[str]]:
    """Return what is in a folder, without what is hidden or has just gone."""
    try:
        with os.scandir(place) as entries:
            return [entry for entry in entries if not is_hidden(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        why = f"what is in it would be left out: {error.strerror}"
        raise refusal(f"{place} cannot be read", why, "allow it to be read, or move it") from error


def files_matching(pattern: Path) -> list[Path]:
    """Return the files that a pattern of a shell means, in natural order.

    ``**`` is any number of folders, each once where links lead in a circle.

    Raises:
        UsageError: as ``files_below``.
    """
    parts = pattern.parts
    if "**" not in parts:
        paths = (Path(name) for name in glob.glob(str(pattern)))
        return sorted(filter(Path.is_file, paths), key=lambda path: natural_key(str(path)))
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:fixed])
    if base == Path(base.anchor) != Path():
        why = f"every folder below {base} would be searched"
        raise refusal(f"{pattern} matches anywhere on this machine", why, "name a folder in it")
    below = files_below(base) if base.is_dir() else []
    return [path for path in below if _matches(path.parts[fixed:], parts[fixed:])]


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not (pattern and parts):
        return not parts and all(each == "**" for each in pattern)
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def without_compressed_copies(paths: list[Path]) -> list[Path]:
    """Return the paths without compressed files whose uncompressed file is also among them."""
    packed = [path for path in paths if _is_compressed(path)]
    if not packed:
        return paths
    known = set(paths)
    copies = {path for path in packed if _uncompressed(path) in known}
    return [path for path in paths if path not in copies]


def describe_files(folder: Path) -> str:
    """Name the first few of the files in a folder and its subfolders."""
    try:
        below = files_below(folder)
    except UsageError as error:
        return error.problems[0].why
    return f"it holds {join_names(path.relative_to(folder).as_posix() for path in below)}"


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
