"""Processes that end when their parent ends, however that happens."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator

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


@contextlib.contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """Have Ctrl-C end this process at once while the block runs, in its main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
