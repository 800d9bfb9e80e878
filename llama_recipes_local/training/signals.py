"""Signals that ask a run to save and stop: SIGTERM, SIGUSR1, Ctrl-C.

A handler only notes that it was called. The loop looks at every step boundary and before every
batch of a validation, and all ranks settle it together.
"""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from llama_recipes_local.errors import TrainingError
from llama_recipes_local.parallel import is_rank_zero

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequested(Exception):  # noqa: N818 (nothing is wrong)
    """All ranks have agreed to save and stop here."""


class InterruptedRun(TrainingError):  # noqa: N818 (nothing is wrong)
    """A run was asked to stop, and can be gone on from.

    Its exit code is that of a temporary failure, EX_TEMPFAIL of ``sysexits.h``: what started the
    run may start it again.
    """

    EXIT_CODE = 75


class Signals:
    """Takes notice of signals while it is entered; a second Ctrl-C ends the process at once."""

    def __init__(self, enabled: bool) -> None:
        """Take notice if ``enabled``, and in the main thread, which alone may."""
        self._enabled = enabled and threading.current_thread() is threading.main_thread()
        self._before: dict[signal.Signals, Any] = {}
        self.received: signal.Signals | None = None

    def __enter__(self) -> "Signals":
        if self._enabled:
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if self.received == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if is_rank_zero():  # print may be what was interrupted
            again = "; again: stop at once" if self.received == signal.SIGINT else ""
            said = f"\n--> {self.received.name}: saving at the next step, then stopping{again}\n"
            os.write(2, said.encode())


def leave_signals_to_main_process(worker: int) -> None:
    """Have a data loader's worker survive what the whole process group is sent.

    The trainer needs its workers up to the next step boundary. A SIGTERM of its own ends them: it
    sends one when it exits, and waits for them.
    """
    for number in (signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_the_trainer_says, daemon=True).start()


def _end_when_the_trainer_says() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
