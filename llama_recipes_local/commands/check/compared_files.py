"""Compares a folder's files with the sizes and hashes in lists."""

import hashlib
from collections.abc import Iterable
from glob import escape
from pathlib import Path

from llama_recipes_local.commands.check.file_lists import Expected
from llama_recipes_local.errors import Problem
from llama_recipes_local.model_folders.weight_files import check_ordinary, check_pointer
from llama_recipes_local.storage.hashing import BLOCK

COPY = "copy the file again, from where the list came from"


def compare_files(folder: Path, expected: Iterable[Expected]) -> dict[str, Problem]:
    """Return a problem for each file that is missing, or not what its list says, by its name."""
    problems: dict[str, Problem] = {}
    for each in expected:
        if each.name not in problems and (problem := _compare(folder / each.name, each)):
            problems[each.name] = problem
    return problems


def _compare(path: Path, expected: Expected) -> Problem | None:
    if not path.is_file():
        if other := check_ordinary(path.parent, escape(path.name)):
            return other[0]
        return Problem(f"{path} is missing", f"{expected.source} names it", "copy it there too")
    if pointer := check_pointer(path):
        return pointer[0]
    size = path.stat().st_size
    if expected.bytes is not None and size != expected.bytes:
        short = "is short" if size < expected.bytes else "is too long"
        why = f"it has {size:,} bytes, {expected.source} says {expected.bytes:,}"
        return Problem(f"{path} {short}", why, COPY)
    if not expected.digest:
        return None
    try:
        found = digest_of(path, expected.algorithm)
    except OSError as error:
        return Problem(f"{path} cannot be read", str(error), COPY)
    if found == expected.digest:
        return None
    empty = " and it is empty" if not size else ""
    why = f"its {expected.algorithm} hash is {found}, {expected.source} says {expected.digest}"
    return Problem(f"{path} is altered or short ({size:,} bytes)", why + empty, COPY)


def digest_of(path: Path, algorithm: str) -> str:
    """Return a file's hash: "sha256", "md5", or "git", a sha1 of its size and contents."""
    if algorithm == "git":
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    else:
        digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
