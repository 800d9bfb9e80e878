"""Signals that make a run save and stop: SIGTERM, SIGUSR1, Ctrl-C.

A handler only records that it was called. The loop checks for this at every step boundary and
before every validation batch, and all ranks decide together.

Python runs a handler only when the main thread is back in Python, which it is not while it waits
for another rank in a collective. So each signal also wakes a thread, which prints the message. It
ends the process at a second Ctrl-C, or if the rank that is waited for hangs.
"""

import os
import select
import signal
import socket
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from llama_recipes_local.console import INTERRUPTED
from llama_recipes_local.errors import InterruptedRun
from llama_recipes_local.parallel import Watch, is_rank_zero
from llama_recipes_local.processes import end_with_parent

SAVES_WITHIN = 4.0  # seconds, or some usual steps: longer than that a rank hangs
POLL = 0.25
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequested(Exception):  # noqa: N818 (not an error)
    """All ranks have agreed to save and stop here."""


class Signals:
    """Records signals inside a ``with`` block; a second Ctrl-C ends the process at once.

    In a notebook, whose process has to continue, it raises ``KeyboardInterrupt`` instead.
    """

    def __init__(self, enabled: bool, watch: Watch | None = None, called: bool = False) -> None:
        """Record signals if ``enabled``; outside of the main thread, print that none is handled.

        Args:
            enabled: whether signals are recorded.
            watch: watches the other ranks; None if there are none.
            called: whether Python called ``finetune``; then the process continues after the run.
        """
        main = threading.current_thread() is threading.main_thread()
        if enabled and not main and is_rank_zero():
            print(
                "--> not in the main thread: signals, such as Ctrl-C, do not save and stop this "
                "run; --save_steps saves what it can be resumed from"
            )
        self._enabled = enabled and main
        self._second = signal.default_int_handler if called and watch is None else signal.SIG_DFL
        self._before: dict[signal.Signals, Any] = {}
        self._watch = watch
        self._wakeup = -1  # the descriptor that was woken before
        self._bell: socket.socket | None = None
        self._ringer: socket.socket | None = None
        self._thread = threading.Thread(target=self._listen, daemon=True)
        if self._enabled:
            self._bell, self._ringer = socket.socketpair()
        self.received: signal.Signals | None = None

    def __enter__(self) -> "Signals":
        if self._enabled:
            self._before = {number: signal.signal(number, self._record) for number in SIGNALS}
        if self._ringer is not None:
            self._ringer.setblocking(False)
            self._wakeup = signal.set_wakeup_fd(self._ringer.fileno(), warn_on_full_buffer=False)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._ringer is not None:
                self._end_thread(self._ringer)
        finally:  # in a notebook, Ctrl-C may interrupt that
            for number, handler in self._before.items():
                if handler is not None:  # it was not Python's, as faulthandler's
                    signal.signal(number, handler)

    def _end_thread(self, ringer: socket.socket) -> None:
        signal.set_wakeup_fd(self._wakeup)
        # ends the thread, which closing would not while a worker has a copy
        ringer.shutdown(socket.SHUT_WR)
        ringer.close()
        self._thread.join()  # it may end the process, which is right for this run alone

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if self.received == signal.SIGINT:
            signal.signal(signal.SIGINT, self._second)

    def _listen(self) -> None:
        """Act on signals in a thread, until training has ended."""
        assert self._bell is not None
        received: set[signal.Signals] = set()
        since = 0.0
        while True:
            if select.select([self._bell], [], [], POLL if since else None)[0]:
                numbers = self._bell.recv(1)
                if not numbers:
                    self._bell.close()
                    return
                if numbers[0] not in SIGNALS:
                    continue
                number = signal.Signals(numbers[0])
                if number not in received:
                    self._announce(number)
                elif number == signal.SIGINT and self._second == signal.SIG_DFL:
                    os._exit(INTERRUPTED)
                received.add(number)
                since = since or time.monotonic()
            if since:
                self._end_if_a_rank_hangs(since)

    def _announce(self, number: signal.Signals) -> None:
        if self._watch is not None:
            self._watch.listen()
        if is_rank_zero():  # print may be what was interrupted
            again = "; again: stop at once" if number == signal.SIGINT else ""
            _write(f"{number.name}: saving at the next step, then stopping{again}")

    def _end_if_a_rank_hangs(self, since: float) -> None:
        """End the process without saving if a rank hangs, so that no common step comes."""
        watch = self._watch
        if watch is None:
            return
        patience = SAVES_WITHIN if watch.silent() else watch.patience(SAVES_WITHIN)
        if time.monotonic() - max(since, watch.since) < patience:
            return
        late = watch.waited_for() or "another rank"
        if watch.peers.speaks(watch.silent()):
            _write(
                f"stopped without saving: this rank waited for {late}\n"
                "   --resume_from_checkpoint auto resumes from the last checkpoint"
            )
        os._exit(InterruptedRun.EXIT_CODE)


def _write(line: str) -> None:
    os.write(2, f"\n--> {line}\n".encode())


def start_worker(parent: int, worker: int) -> None:
    """Make a data loader's worker end with its run, even a killed one, and ignore its signals.

    torch's own worker checks only every five seconds whether its parent is still there.

    Args:
        parent: the run's process id.
        worker: the worker's number.
    """
    end_with_parent(parent)
    leave_signals_to_main_process(worker)


def leave_signals_to_main_process(worker: int) -> None:
    """Make a data loader's worker ignore signals that the whole process group receives.

    The main process needs its workers up to the next step boundary. Only its own SIGTERM, which it
    sends before it exits, ends them.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_exit_on_parents_sigterm, daemon=True).start()


def _exit_on_parents_sigterm() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
