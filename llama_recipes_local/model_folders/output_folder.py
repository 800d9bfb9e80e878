"""Checks that a new model's folder can be written, before any weight is read."""

import os
from pathlib import Path

from llama_recipes_local.errors import Problem
from llama_recipes_local.messages import amount
from llama_recipes_local.storage.disk import free_bytes, nearest_existing
from llama_recipes_local.storage.names import check_new_name, check_path

NEW_FOLDER = "name a new folder: --out DIR"
SPARE_BYTES = 100 * 10**6
"""Disk space for the tokenizer and the like."""


def check_output_folder(folder: Path) -> list[Problem]:
    """Return a problem if the folder is not empty or not writable: nothing is ever overwritten."""
    try:
        named = check_path(folder, "--out") or check_new_name(folder, "--out")
        return named or _in_the_way(folder) or _unwritable(folder)
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        return [Problem(f"--out {folder} cannot be written", str(error), NEW_FOLDER)]


def _in_the_way(folder: Path) -> list[Problem]:
    if folder.is_mount():
        why = "it is a mount point, and the model's folder is renamed into place once written"
        fix = f"name a new folder in it: --out {folder / 'model'}"
        return [Problem(f"--out {folder} cannot be replaced", why, fix)]
    if folder.is_dir():
        if any(folder.iterdir()):
            return [
                Problem(f"--out {folder} is not empty", "nothing in it is overwritten", NEW_FOLDER)
            ]
    elif folder.exists():
        return [
            Problem(f"--out {folder} is a file", "the model is written into a folder", NEW_FOLDER)
        ]
    return []


def _unwritable(folder: Path) -> list[Problem]:
    # the model is written next to its place, so an existing writable folder is not enough
    above = nearest_existing(folder.parent)
    if not above.is_dir():
        return [Problem(f"--out {folder} cannot be written", f"{above} is a file", NEW_FOLDER)]
    if not os.access(above, os.W_OK | os.X_OK):
        why = f"{above} is not writable"
        return [Problem(f"--out {folder} cannot be written", why, NEW_FOLDER)]
    return []


def check_free_space(folder: Path, size: int) -> list[Problem]:
    """Return a problem if there is not enough disk space for ``size`` bytes of weights."""
    free = free_bytes(nearest_existing(folder))
    if free is None or free >= size + SPARE_BYTES:
        return []
    return [
        Problem(
            f"--out {folder}: not enough disk space for the model",
            f"it takes {amount(size)} and {amount(SPARE_BYTES)} for its other files, and "
            f"{amount(free)} are free",
            "free space, or choose a folder on another disk: --out DIR",
        )
    ]
