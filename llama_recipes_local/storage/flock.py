"""Locks of files and folders (``flock``) that end with the process that took them.

A lock lasts as long as any copy of its descriptor, so forked processes close their copies: they may
outlive a process that was killed. Some network file systems have no locks; nothing is locked there.
"""

import errno
import os
from contextlib import suppress

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

TAKEN = (errno.EWOULDBLOCK, errno.EACCES)

_held: set[int] = set()


class TakenError(Exception):
    """Another process holds the lock."""


def take(descriptor: int) -> bool:
    """Lock a descriptor, and make processes forked from now on close it.

    Returns:
        Whether it is locked; False where the file system, or the system, has no locks.

    Raises:
        TakenError: if another process holds the lock.
    """
    _held.add(descriptor)
    return fcntl is not None and _lock(descriptor, fcntl.LOCK_EX)


def check(descriptor: int) -> None:
    """Lock a descriptor for as long as this takes; several processes can at the same time.

    Raises:
        TakenError: if another process holds the lock.
    """
    if fcntl is not None and _lock(descriptor, fcntl.LOCK_SH):
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            raise TakenError from error
        return False
    return True


def release(descriptor: int) -> None:
    """Unlock a descriptor at once, whatever a process that is being forked has yet to close."""
    _held.discard(descriptor)
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _close_inherited() -> None:
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)
