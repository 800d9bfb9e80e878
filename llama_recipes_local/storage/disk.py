"""Free space on a disk, and explanations of write errors."""

import errno
import shutil
from pathlib import Path
from typing import NamedTuple


def free_bytes(folder: Path) -> int | None:
    """Return the free bytes of a folder's file system; None if it reports none, as /proc."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return usage.free if usage.total else None


def nearest_existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


class WriteFailure(NamedTuple):
    """Why a file could not be written, what the user can do, and whether fewer files would help."""

    why: str
    fix: str
    fewer_help: bool = False


_FAILURES = {
    errno.ENOSPC: WriteFailure("no space left on device", "free space there", True),
    errno.EDQUOT: WriteFailure(
        "your disk quota is used up", "remove files of yours there, or have the quota raised", True
    ),
    errno.EFBIG: WriteFailure(
        "a file may not become that large",
        "raise the limit, which `ulimit -f` shows, or use a file system that takes larger files",
    ),
    errno.EROFS: WriteFailure(
        "the file system is read-only", "have it mounted for writing, or name a folder elsewhere"
    ),
    errno.EACCES: WriteFailure(
        "permission denied", "have the folder's owner give you access, or name a folder elsewhere"
    ),
    errno.ENAMETOOLONG: WriteFailure("the path is too long", "name a folder with a shorter path"),
    errno.EIO: WriteFailure(
        "the disk failed", "check it (`dmesg` tells what failed), or name a folder elsewhere"
    ),
    errno.EMFILE: WriteFailure(
        "too many files are open",
        "raise the limit, which `ulimit -n` shows, or start fewer processes that prepare batches "
        "(--num_workers_dataloader 0)",
    ),
    errno.ENOMEM: WriteFailure(
        "no memory left", "free memory, or let this process have more (`ulimit -v` shows its limit)"
    ),
    errno.ESTALE: WriteFailure("the network file system was remounted", "check that it is there"),
}
_FAILURES[errno.EPERM] = _FAILURES[errno.EACCES]


_TORCHS_WORDS = {
    errno.EMFILE: "Too many open files",
    errno.ENOMEM: "DefaultCPUAllocator: can't allocate memory",
}


def write_failure(error: BaseException) -> WriteFailure | None:
    """Return why a file could not be written, with the error; None if it is of another kind."""
    found = next((number for number in _FAILURES if _is(error, number)), None)
    if found is None:
        return None
    return _FAILURES[found]._replace(why=f"{_FAILURES[found].why} ({error})")


def is_full(error: BaseException) -> bool:
    """Return whether an error means that a disk is full, so that its free space can be reported."""
    return _is(error, errno.ENOSPC)


def _is(error: BaseException, number: int) -> bool:
    """Return whether an error has a number; errors raised outside Python have it in their text."""
    text = str(error)
    if isinstance(error, RuntimeError) and number in _TORCHS_WORDS:
        return _TORCHS_WORDS[number] in text
    if isinstance(error, MemoryError):
        return number == errno.ENOMEM
    return getattr(error, "errno", None) == number or f"os error {number})" in text
