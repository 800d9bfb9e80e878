"""Swaps two paths in one step, where the system can."""

import ctypes
import errno
import os
from pathlib import Path

# of linux/fcntl.h and linux/fs.h
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2

# an older kernel; a file system that cannot, as NFS
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def exchange(a: Path, b: Path) -> bool:
    """Swap what two paths name, at no moment of which one of them is missing.

    Returns:
        Whether it was done; False where the system or the file system cannot.

    Raises:
        OSError: if it failed for another reason, such as a missing path.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:  # not Linux, or an older C library
        return False
    arguments = (_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE)
    if rename(*arguments) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(a), None, str(b))
