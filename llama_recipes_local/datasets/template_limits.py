"""Limits a chat template, which may be a stranger's, in time and memory."""

import contextlib
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

SECONDS = 5.0
"""Processor time in which one conversation is rendered; a usual one takes a thousandth."""
BYTES = 2 << 30
"""Memory that rendering one may take."""

_stopped: dict[str, str] = {}
_rendered: set[str] = set()


@contextlib.contextmanager
def limited(template: str) -> Iterator[None]:
    """Stop a template that takes too long, or at its first rendering too much memory.

    The memory limit applies to the whole process, so it is not used while other threads train. The
    time limit works only in a process's main thread, which renders all conversations here.

    Raises:
        TimeoutError: if it takes too long, or did before.
        MemoryError: if it takes too much memory, or did before.
    """
    if template in _stopped:
        raise TimeoutError(_stopped[template])
    try:
        with _limited_memory(template not in _rendered), _limited_time():
            yield
    except MemoryError:
        _stopped[template] = f"it took more than {BYTES >> 30} GiB of memory"
        raise MemoryError(_stopped[template]) from None
    except TimeoutError as error:
        _stopped[template] = str(error)
        raise
    _rendered.add(template)


@contextlib.contextmanager
def _limited_time() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it was stopped after {SECONDS:g} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    # repeated, because an exception is lost where Python cannot raise one
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextlib.contextmanager
def _limited_memory(wanted: bool) -> Iterator[None]:
    statm = Path("/proc/self/statm")
    if not wanted or not statm.exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = int(statm.read_text().split()[0]) * resource.getpagesize() + BYTES
    unlimited = (resource.RLIM_INFINITY,)
    limit = min([limit, *(each for each in (soft, hard) if each not in unlimited)])
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
