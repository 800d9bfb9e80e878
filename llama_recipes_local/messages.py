"""Phrases that many messages share: lists of names, what a folder holds, a missing path."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from llama_recipes_local.errors import Problem
from llama_recipes_local.storage.names import natural_key

NAMES_SHOWN = 10


def join_names(names: Iterable[str]) -> str:
    """Return the first few names and how many more there are."""
    known = list(names)
    rest = f" and {len(known) - NAMES_SHOWN} more" if len(known) > NAMES_SHOWN else ""
    return f"{', '.join(known[:NAMES_SHOWN])}{rest}" or "nothing"


def describe_folder(folder: Path) -> str:
    """Say what a folder holds, without its subfolders' content, or that it does not exist."""
    if not folder.is_dir():
        return f"{folder} does not exist"
    return f"{folder} holds {join_names(sorted(entry.name for entry in folder.iterdir()))}"


def missing_path(path: Path, fix: str) -> Problem:
    """Return the problem with a path that does not exist, and what its folder holds."""
    parent = path.parent
    if parent.is_dir():
        names = sorted((entry.name for entry in parent.iterdir()), key=natural_key)
        return Problem(f"{path} does not exist", f"{parent} holds {join_names(names)}", fix)
    return Problem(f"{path} does not exist", f"neither does {parent}", fix)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most like another, or an empty string if none is."""
    return next(iter(get_close_matches(name, list(known), n=1, cutoff=0.5)), "")


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
