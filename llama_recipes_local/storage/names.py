"""File names: natural order, free names, and names that no file can have.

safetensors, JSON and the console accept only valid UTF-8, and file systems limit the length of a
name.
"""

import errno
import hashlib
import os
import re
from itertools import chain, count
from pathlib import Path

from llama_recipes_local.errors import Problem, one_line, refusal, refuse

LONGEST_NAME = 255
"""Bytes of a file's or a folder's name, on every file system of Linux."""
LONGEST_PATH = 4095
"""Bytes of a path: PATH_MAX without its final zero."""
_SWITCHES = ("true", "false", "none", "null")


def natural_key(name: str) -> tuple[str, str]:
    """Return a sort key that puts part 2 before part 10."""
    return re.sub("[0-9]+", lambda number: number[0].zfill(20), name), name


def free_path(path: Path, ending: str = "") -> Path:
    """Return a path that does not exist yet: the given one, or with -2, -3 and so on added.

    Args:
        path: a file's or a folder's.
        ending: end of the name that stays behind the number, such as ".json".
    """
    name = path.name.removesuffix(ending)
    names = chain([path.name], (f"{name}-{number}{ending}" for number in count(2)))
    return next(free for free in map(path.with_name, names) if not os.path.lexists(free))


def hidden_beside(path: Path, ending: str) -> Path:
    """Return a hidden path for what belongs to another: a dot, its name, and an ending.

    A name that would be longer than any may be is a hash of that name.
    """
    name = f".{path.name}{ending}"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()}{ending}"
    return path.with_name(name)


def shortened(name: str, most: int = 100) -> str:
    """Return a name's first characters, of at most so many bytes."""
    return os.fsencode(name)[:most].decode("utf-8", "ignore")


def check_name(path: str | os.PathLike[str], flag: str = "") -> list[Problem]:
    """Return a problem if a path has bytes that are not UTF-8, such as a name in GBK.

    Args:
        path: a path as Python decodes it, with a surrogate for each such byte.
        flag: the flag that names it, if known.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return [
            Problem(
                f"{flag} {path}".strip(),
                "the name has bytes that are not UTF-8, and cannot be written into records",
                "rename it or name another (convmv -f gbk -t utf-8 renames from GBK)",
            )
        ]
    return []


def check_path(path: str | os.PathLike[str], flag: str) -> list[Problem]:
    """Return a problem if no file can have a path: ``check_name``'s or ``check_possible``'s.

    Args:
        path: a path as Python decodes it; a relative one is below the working directory.
        flag: the flag that names it.
    """
    return check_name(path, flag) or check_possible(path, flag)


def check_possible(path: str | os.PathLike[str], flag: str) -> list[Problem]:
    """Return a problem if a path is too long, made of circular links, or not accessible.

    A word that means yes, no or nothing is refused too: a folder of that name would be made by
    mistake.
    """
    text, fix = os.fspath(path), f"name another: {flag} PATH"
    if text.strip().lower() in _SWITCHES:
        fix = f"leave {flag} out, or name one, with ./ before a name such as this: {flag} PATH"
        return [Problem(f"{flag} {text}", "it takes the path of a file or folder", fix)]
    longest = max((len(os.fsencode(part)) for part in text.split(os.sep)), default=0)
    whole = len(os.fsencode(os.path.abspath(text.replace("\0", ""))))
    if longest > LONGEST_NAME:
        why = f"a name has {LONGEST_NAME} bytes at most"
        return [Problem(f"{flag} has a name of {longest} bytes: {text[:40]}...", why, fix)]
    if whole > LONGEST_PATH:
        why = f"a path has {LONGEST_PATH} bytes at most"
        return [Problem(f"{flag} is a path of {whole} bytes: {text[:40]}...", why, fix)]
    if "\0" in text:
        return [Problem(f"{flag} {text!r}", "a path has no zero byte", fix)]
    path = os.path.expanduser(text)
    number = _stat_error(path)
    if number == errno.ELOOP:
        why = "it is a link that leads back to itself, or through too many others"
        return [Problem(f"{flag} {text}", why, fix)]
    if number == errno.EACCES or (number == 0 and not _is_open(path)):
        why = "permission denied: this user may not read it"
        return [Problem(f"{flag} {text}", why, f"have its owner allow that, or {fix}")]
    return []


def _stat_error(path: str) -> int:
    """Return the number of the error that the system gives for a path; 0 for none."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno or 0
    return 0


def _is_open(path: str) -> bool:
    """Return whether a folder may be looked into, or a file read."""
    return os.access(path, os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK)


def check_new_name(path: str | os.PathLike[str], flag: str) -> list[Problem]:
    """Return a problem if the path of a new folder has control characters.

    Args:
        path: as it was given.
        flag: the flag that names it.
    """
    text = os.fspath(path)
    if one_line(text) == text:
        return []
    why = "its control characters cannot be shown: no printed command could name that folder"
    return [Problem(f"{flag} {text!r}", why, f"name another: {flag} DIR")]


def refuse_name(path: str | os.PathLike[str], flag: str) -> None:
    """Refuse a path that ``check_path`` reports.

    Raises:
        UsageError: if no file can have it.
    """
    refuse(check_path(path, flag))


def refuse_output_file(path: Path, flag: str, example: str) -> None:
    """Refuse a file that a command would write if it cannot be one, before any work is done.

    A device or pipe is refused: a file is renamed into its place when it is whole, which would
    replace ``/dev/null`` itself.

    Args:
        path: of the file, which may exist.
        flag: the flag that names it.
        example: a value for the flag.

    Raises:
        UsageError: if it cannot be written.
    """
    refuse_name(path, flag)
    path = path.resolve()
    why = ""
    if path.is_dir():
        why = f"{path} is a folder"
    elif path.exists() and not path.is_file():
        why = f"{path} is a device or a pipe, which a file would replace"
    elif not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        why = f"{path.parent} is not a writable folder"
    if why:
        raise refusal(f"{flag} {path}", why, f"name a file: {flag} {example}")
