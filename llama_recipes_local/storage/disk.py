"""Free space on a disk, and errors that mean that there is none."""

import errno
import shutil
from pathlib import Path

# of the disk, of the user's quota, and of the size of a process's files
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def free_bytes(folder: Path) -> int | None:
    """Return the free bytes of a folder's file system; None if it does not report them."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def nearest_existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def describe_full_disk(error: BaseException) -> str:
    """Say that the disk is full, if an error means that; else return an empty string.

    Libraries that are not written in Python give an error's number in its text only.
    """
    number = getattr(error, "errno", None)
    if number in FULL or any(f"os error {code})" in str(error) for code in FULL):
        return f"no space left on device ({error})"
    return ""
