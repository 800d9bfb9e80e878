"""Processes that end when the one that started them ends, however it ends."""

import ctypes
import os
import signal
import sys

# of linux/prctl.h
_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Have this process get a signal when its parent ends; called in the new process.

    A parent that is killed tells its children nothing: they would wait for work for ever. Only
    Linux has this; elsewhere nothing is done.

    Args:
        parent: the parent's process id, as the parent saw it: it may have ended before this call.
        number: the signal.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)
