"""Phrases that many messages share: lists of names, a folder's content, a missing path."""

import os
import re
import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from llama_recipes_local.errors import Problem
from llama_recipes_local.storage.names import natural_key
from llama_recipes_local.storage.publishing import old_of

NAMES_SHOWN = 10


def join_names(names: Iterable[str]) -> str:
    """Return the first few names and how many more there are."""
    known = list(names)
    rest = f" and {len(known) - NAMES_SHOWN} more" if len(known) > NAMES_SHOWN else ""
    return f"{', '.join(known[:NAMES_SHOWN])}{rest}" or "nothing"


def amount(size: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    if size >= 1e9:
        return f"{size / 1e9:.2f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def describe_folder(folder: Path) -> str:
    """Say what a folder holds, without its subfolders' content, or that there is none."""
    if folder.is_file():
        return f"{folder} is a file"
    if not folder.is_dir():
        old = old_of(folder)
        if not old.is_dir():
            return f"{folder} does not exist"
        back = f"mv {shlex.quote(str(old))} {shlex.quote(str(folder))}"
        return (
            f"{folder} does not exist: it was being replaced when the process was killed, and what "
            f"it held is in {old.name}; `{back}` puts it back"
        )
    return f"{folder} holds {join_names(sorted(entry.name for entry in folder.iterdir()))}"


def missing_path(path: Path, fix: str) -> Problem:
    """Return the problem with a path that does not exist, or is a folder instead of a file.

    A file where a folder is needed counts too. For a missing path, the problem lists what its
    folder holds.
    """
    parent = path.absolute().parent
    if path.exists():
        found, needed = ("a folder", "a file") if path.is_dir() else ("a file", "a folder")
        return Problem(f"{path} is {found}", f"{needed} is needed", fix)
    if old_of(path).is_dir():
        return Problem(f"{path} does not exist", describe_folder(path), fix)
    if path.is_symlink():
        return Problem(f"{path} does not exist", f"it is a link to {os.readlink(path)}", fix)
    if parent.is_dir():
        names = sorted((entry.name for entry in parent.iterdir()), key=natural_key)
        return Problem(f"{path} does not exist", f"{parent} holds {join_names(names)}", fix)
    return Problem(f"{path} does not exist", f"neither does {parent}", fix)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that a misspelt one most likely means; "" if none is near.

    A name is near if it differs by a typing error, or contains all words of the other: num_epochs
    is near epochs. Another digit is not a typing error: 3bit does not mean 8bit.
    """
    close = get_close_matches(name, list(known), n=10, cutoff=0.5)
    return next((each for each in close if _is_typo(name, each) or _has_words(each, name)), "")


def _is_typo(name: str, known: str) -> bool:
    if re.findall("[0-9]", name) != re.findall("[0-9]", known):
        return False
    longest = max(len(name), len(known))
    most = max(int(longest > 2), longest // 4)
    return _edits(name.lower(), known.lower(), most) <= most


def _has_words(known: str, name: str) -> bool:
    """Return whether each word of a name begins a word of a known one, in order."""
    rest = iter(re.split("[-_. ]", known.lower()))
    words = re.split("[-_. ]", name.lower())
    return all(any(each.startswith(word) for each in rest) for word in words)


def _edits(first: str, second: str, most: int) -> int:
    """Return how many letters are added, left out, wrong or swapped; ``most`` + 1 for more."""
    if abs(len(first) - len(second)) > most:
        return most + 1
    before: list[int] = []
    last = list(range(len(second) + 1))
    for i, letter in enumerate(first, 1):
        row = [i]
        for j, other in enumerate(second, 1):
            cost = min(last[j] + 1, row[-1] + 1, last[j - 1] + (letter != other))
            if i > 1 and j > 1 and (first[i - 2], letter) == (other, second[j - 2]):
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


def unknown_flag(name: str, known: Iterable[str], why: str = "", otherwise: str = "") -> Problem:
    """Return the problem with a flag that does not exist; its fix is the nearest that does.

    Args:
        name: the flag, with its dashes.
        known: the flags that exist, without dashes.
        why: which program or configuration does not have it.
        otherwise: the fix if no known flag is like it.
    """
    near = nearest(name.lstrip("-"), known)
    return Problem(f"unknown flag {name}", why, f"did you mean --{near}?" if near else otherwise)


def flag_for(word: str) -> str:
    """Return the flag for a path that was given without one; an empty string for another word."""
    if os.path.isfile(os.path.join(word, "adapter_config.json")):  # Path raises at a long name
        return "adapter"
    if os.path.isfile(os.path.join(word, "config.json")):
        return "model_name"
    return "dataset" if os.path.exists(word) else ""


def empty_value(name: str) -> Problem:
    """Return the problem with a flag, named with its dashes, whose value is empty."""
    why = "no text stands after it, as with a variable of the shell that is not set"
    return Problem(f"{name} is empty", why, f"give {name} a value, or leave it out")
