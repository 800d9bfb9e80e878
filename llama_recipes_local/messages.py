"""Phrases that many messages share: lists of names, what a folder holds, a missing path."""

from collections.abc import Iterable
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
