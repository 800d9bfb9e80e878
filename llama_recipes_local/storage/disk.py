"""How much room a disk has and where, and errors that say that it has none."""

import errno
import shutil
from pathlib import Path

# a disk, a user's quota, and the largest file a process may write
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def room(folder: Path) -> int | None:
    """Return the bytes that are free in a folder's file system; None where it does not say."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def nearest_existing(folder: Path) -> Path:
    """Return the nearest of a folder and those above it that is there."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def what_filled(error: BaseException) -> str:
    """Say that there is no room, if that is what an error means; else return nothing.

    Libraries that are not written in Python tell the number of an error in its text alone.
    """
    number = getattr(error, "errno", None)
    if number in FULL or any(f"os error {code})" in str(error) for code in FULL):
        return f"there is no room left on its disk ({error})"
    return ""
