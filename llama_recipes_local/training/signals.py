"""Signals that make a run save and stop: SIGTERM, SIGUSR1, Ctrl-C.

A handler only records that it was called. The loop checks at every step boundary and before every
validation batch, and all ranks decide together.
"""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from llama_recipes_local.errors import TrainingError
from llama_recipes_local.parallel import is_rank_zero

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequested(Exception):  # noqa: N818 (not an error)
    """All ranks have agreed to save and stop here."""


class InterruptedRun(TrainingError):  # noqa: N818 (not an error)
    """A run was stopped by a signal, and can be resumed.

    Its exit code is that of a temporary failure, EX_TEMPFAIL of ``sysexits.h``: a scheduler may
    start the run again.
    """

    EXIT_CODE = 75


class Signals:
    """Records signals inside a ``with`` block; a second Ctrl-C ends the process at once."""

    def __init__(self, enabled: bool) -> None:
        """Record signals if ``enabled``; only the main thread may handle them."""
        self._enabled = enabled and threading.current_thread() is threading.main_thread()
        self._before: dict[signal.Signals, Any] = {}
        self.received: signal.Signals | None = None

    def __enter__(self) -> "Signals":
        if self._enabled:
            self._before = {number: signal.signal(number, self._record) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if self.received == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if is_rank_zero():  # print may be what was interrupted
            again = "; again: stop at once" if self.received == signal.SIGINT else ""
            message = f"\n--> {self.received.name}: saving at the next step, then stopping{again}\n"
            os.write(2, message.encode())


def leave_signals_to_main_process(worker: int) -> None:
    """Make a data loader's worker ignore signals that the whole process group receives.

    The main process needs its workers up to the next step boundary. Only its own SIGTERM, which it
    sends before it exits, ends them.
    """
    for number in (signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_exit_on_parents_sigterm, daemon=True).start()


def _exit_on_parents_sigterm() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
