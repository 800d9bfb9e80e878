"""What becomes of a command when nobody reads its output any longer, as after ``| head``.

Most have nothing else to give, and end. A training run goes on: its work is in files.
"""

import contextlib
import os
import select
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llama_recipes_local.errors import TrainingError, UsageError
from llama_recipes_local.storage.disk import room, what_filled

INTERRUPTED = 128 + signal.SIGINT
"""The exit code after Ctrl-C, as a shell has it."""

GOES_ON = (
    "--> nobody reads this run's standard output any longer: training goes on without it, and its "
    "files in the output folder tell of it as before"
)


@contextlib.contextmanager
def ends_unread() -> Iterator[None]:
    """End quietly once what is printed in the ``with`` block is read no longer.

    Raises:
        SystemExit: then, with the exit code of a command that could not go on.
    """
    try:
        try:
            yield
        finally:
            print(end="", flush=True)  # not as the interpreter ends, which would tell of it
    except BrokenPipeError:
        if not _is_unread(sys.stdout):  # another pipe, as one to a worker process
            raise
        _silence(sys.stdout)
        raise SystemExit(TrainingError.EXIT_CODE) from None


@contextlib.contextmanager
def goes_on_unread() -> Iterator[None]:
    """Go on when what is printed in the ``with`` block is read no longer, and say so once."""
    out, err = _Enduring.of(sys.stdout), _Enduring.of(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield
        finally:
            print(end="", flush=True)


@contextlib.contextmanager
def rank_zero_output() -> Iterator[None]:
    """Silence standard output, progress bars and warnings in the block on every rank but the first.

    On the first, only warnings about upstream's own code go: it calls what transformers is about
    to drop, and asks for pinned memory on machines without a GPU.
    """
    from transformers.utils import logging

    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        if not _is_rank_zero():
            warnings.simplefilter("ignore")
            if logging.is_progress_bar_enabled():
                logging.disable_progress_bar()
                stack.callback(logging.enable_progress_bar)
            silence = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(silence))
        yield


def report_failure(error: BaseException, output: Path | None = None) -> int | None:
    """Print what ended a command, if it is an expected error, and return the exit code.

    What all ranks raise alike is printed by the first.

    Args:
        error: the error.
        output: the folder that the command writes to, whose free space a full disk reports.

    Returns:
        The exit code; None for an error that nobody expected, which keeps its traceback.
    """
    if isinstance(error, (UsageError, TrainingError)):
        if _is_rank_zero():
            print(error, file=sys.stderr)
        return error.EXIT_CODE
    if isinstance(error, KeyboardInterrupt):
        print("\nstopped by Ctrl-C", file=sys.stderr)
        return INTERRUPTED
    full = what_filled(error)
    if not full:
        return None
    free = f"; {room(output)} bytes are free in {output.resolve()}" if output else ""
    print(f"stopped: {full}{free}", file=sys.stderr)
    print("   fix: free space there and run the command again", file=sys.stderr)
    return TrainingError.EXIT_CODE


def _is_rank_zero() -> bool:
    return int(os.environ.get("RANK", 0)) == 0  # as parallel.rank, which imports torch


class _Enduring:
    """A stream that falls silent once nobody reads it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    @classmethod
    def of(cls, stream: Any) -> Any:
        """Wrap a stream; Python has None for one that was closed from the start."""
        return None if stream is None else cls(stream)

    def write(self, text: str) -> int:
        """Write to the stream while it is read."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream while it is read."""
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except BrokenPipeError:
            _silence(self._stream)
            print(GOES_ON, file=sys.stderr, flush=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_unread(stream: Any) -> bool:
    """Tell whether the other end of a stream's pipe is closed."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return bool(poll.poll(0))


def _silence(stream: Any) -> None:
    """Let what was and will be written to a stream go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
