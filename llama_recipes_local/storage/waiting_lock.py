"""A lock file that processes wait for; it says which process holds it."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llama_recipes_local.storage import flock

READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
POLL_SECONDS = 0.05
SILENT_SECONDS = 5.0
"""How long a process waits before it says what for."""


@contextmanager
def waited_for(path: Path, what: str) -> Iterator[bool]:
    """Hold a lock file once no other process does; it is released if this process dies.

    Yields whether it is locked: False if the folder is read-only, or the file system has no locks.

    Args:
        path: the file, in a folder that exists. It is not followed if it is a link.
        what: what is waited for, as it is printed.

    Raises:
        OSError: if the file cannot be opened.
    """
    descriptor = _open(path)
    if descriptor is None:
        yield False
        return
    try:
        locked = _wait(descriptor, path, what)
        _write(descriptor, f"{os.getpid()} {socket.gethostname()} {time.strftime('%F %T')}")
        try:
            yield locked
        finally:
            _write(descriptor, "")
    finally:
        flock.release(descriptor)


def _open(path: Path) -> int | None:
    """Open a lock file, for reading alone if it is another user's; None if that is refused too."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
    with suppress(OSError):
        return os.open(path, os.O_RDONLY | flags)
    return None


def _wait(descriptor: int, path: Path, what: str) -> bool:
    """Wait for a lock; return whether it is held, see ``flock.take``."""
    began, said = time.monotonic(), False
    while True:
        try:
            return flock.take(descriptor)
        except flock.TakenError:
            if not said and time.monotonic() - began > SILENT_SECONDS:
                said = True
                print(f"--> waiting for {what}: {_holder(path)}", flush=True)
                print(f"   lock: {path}", flush=True)
            time.sleep(POLL_SECONDS)


def _holder(path: Path) -> str:
    with suppress(OSError, ValueError):
        process, host, since = path.read_text("utf-8").split(" ", 2)
        return f"process {process} on {host} holds the lock since {since}"
    return "another process holds the lock"


def _write(descriptor: int, holder: str) -> None:
    """Write who holds a lock into its file, unless that is open for reading or the disk is full."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode(), 0)
