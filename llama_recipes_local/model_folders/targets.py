"""Whether a new model's folder can be written, asked before any weight is read."""

import os
import shutil
from pathlib import Path

from llama_recipes_local.errors import Problem
from llama_recipes_local.files.disk import nearest_existing

SPARE_BYTES = 100 * 10**6
"""Room for the tokenizer and the like."""


def check_target(folder: Path, flag: str = "--out") -> list[Problem]:
    """Return a problem if there is something in the folder already: nothing is ever overwritten."""
    mend = f"name a new folder: {flag} DIR"
    try:
        return _in_the_way(folder, flag, mend) or _unwritable(folder, flag, mend)
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        return [Problem(f"{flag} {folder} cannot be written", str(error), mend)]


def _in_the_way(folder: Path, flag: str, mend: str) -> list[Problem]:
    if folder.is_mount():
        why = "a disk begins there, and the model's folder is renamed into its place once written"
        mend = f"name a new folder in it: {flag} {folder / 'model'}"
        return [Problem(f"{flag} {folder} cannot be replaced", why, mend)]
    if folder.is_dir():
        if any(folder.iterdir()):
            return [Problem(f"{flag} {folder} is not empty", "nothing in it is overwritten", mend)]
    elif folder.exists():
        return [Problem(f"{flag} {folder} is a file", "the model is written into a folder", mend)]
    return []


def _unwritable(folder: Path, flag: str, mend: str) -> list[Problem]:
    # the model is written beside its place, so a folder that is there already does not suffice
    above = nearest_existing(folder.parent)
    if not above.is_dir():
        return [Problem(f"{flag} {folder} cannot be written", f"{above} is a file", mend)]
    if not os.access(above, os.W_OK | os.X_OK):
        why = f"nothing can be written in {above}"
        return [Problem(f"{flag} {folder} cannot be written", why, mend)]
    return []


def check_room(folder: Path, size: int, flag: str = "--out") -> list[Problem]:
    """Return a problem if the disk has no room for ``size`` bytes of weights."""
    free = shutil.disk_usage(nearest_existing(folder)).free
    if free >= size + SPARE_BYTES:
        return []
    return [
        Problem(
            f"{flag} {folder} has no room for the model",
            f"it takes {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            f"make room, or name a folder on another disk: {flag} DIR",
        )
    ]
