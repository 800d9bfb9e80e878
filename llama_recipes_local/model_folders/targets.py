"""Whether a new model's folder can be written, asked before any weight is read."""

import shutil
from pathlib import Path

from llama_recipes_local.errors import Problem

SPARE_BYTES = 100 * 10**6
"""Room for the tokenizer and the like."""


def check_target(folder: Path, flag: str = "--out") -> list[Problem]:
    """Return a problem if there is something in the folder already: nothing is ever overwritten."""
    mend = f"name a new folder: {flag} DIR"
    if folder.is_dir():
        if any(folder.iterdir()):
            return [Problem(f"{flag} {folder} is not empty", "nothing in it is overwritten", mend)]
    elif folder.exists():
        return [Problem(f"{flag} {folder} is a file", "the model is written into a folder", mend)]
    return []


def check_room(folder: Path, size: int, flag: str = "--out") -> list[Problem]:
    """Return a problem if the disk has no room for ``size`` bytes of weights."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free >= size + SPARE_BYTES:
        return []
    return [
        Problem(
            f"{flag} {folder} has no room for the model",
            f"it takes {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            f"make room, or name a folder on another disk: {flag} DIR",
        )
    ]
