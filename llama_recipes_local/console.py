"""The output of commands: control characters, broken pipes, ranks, and error messages.

When a pipe breaks, as after ``| head``, most commands exit, because their output is all that they
produce. A training run continues, because its results are in files.
"""

import contextlib
import os
import re
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from llama_recipes_local import launch
from llama_recipes_local.errors import TrainingError, UsageError, printable
from llama_recipes_local.screen import note_in, width_of
from llama_recipes_local.storage.disk import free_bytes, is_full, write_failure
from llama_recipes_local.storage.publishing import write_json

INTERRUPTED = 128 + signal.SIGINT
"""The exit code after Ctrl-C, as a shell has it."""

PIPE_CLOSED = (
    "--> standard output is closed (broken pipe): training continues without it, and still writes "
    "its files to the output folder"
)


@contextlib.contextmanager
def printable_output() -> Iterator[None]:
    """Print control characters in the block as visible text, as ``printable`` does.

    Every command runs in such a block, because its output may contain text from data and models.
    """
    out, err = _PrintableStream.wrap(sys.stdout), _PrintableStream.wrap(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


@contextlib.contextmanager
def verbatim_output() -> Iterator[None]:
    """Send what the block prints to standard output as it is."""
    out = sys.stdout.stream if isinstance(sys.stdout, _PrintableStream) else sys.stdout
    with contextlib.redirect_stdout(out):
        yield


def data_output() -> contextlib.AbstractContextManager[None]:
    """Send what the block prints to standard output as it is, unless that is a terminal."""
    return contextlib.nullcontext() if sys.stdout.isatty() else verbatim_output()


@contextlib.contextmanager
def exit_on_broken_pipe() -> Iterator[None]:
    """Exit quietly once the reader of what is printed in the ``with`` block is gone.

    Raises:
        SystemExit: on a broken pipe, with the exit code of a command that failed.
    """
    try:
        try:
            yield
        finally:
            print(end="", flush=True)  # at exit the interpreter would print a traceback
    except BrokenPipeError:
        if not _is_pipe_closed(sys.stdout):  # another pipe, such as one to a worker
            raise
        _silence(sys.stdout)
        raise SystemExit(TrainingError.EXIT_CODE) from None


@contextlib.contextmanager
def ignore_broken_pipe() -> Iterator[None]:
    """Continue when the reader of what the ``with`` block prints is gone, and say so once."""
    out, err = _UnbreakableStream.wrap(sys.stdout), _UnbreakableStream.wrap(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield
        finally:
            print(end="", flush=True)


@contextlib.contextmanager
def rank_zero_output() -> Iterator[None]:
    """Silence standard output, progress bars and warnings in the block on all ranks but rank 0.

    On rank 0 only warnings about upstream's own code are silenced: it calls what transformers is
    about to remove, and asks for pinned memory on machines without a GPU.
    """
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        if launch.rank() != 0:
            warnings.simplefilter("ignore")
            stack.enter_context(no_loading_bars())
            silence = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(silence))
        yield


@contextlib.contextmanager
def no_loading_bars() -> Iterator[None]:
    """Keep transformers from drawing bars in the block, as of weights that it loads or writes."""
    from transformers.utils import logging

    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


class Failure(NamedTuple):
    """What is printed when a command ends before it is done, and its exit code."""

    text: str
    code: int


class EndedRun(Exception):  # noqa: N818 (a run may be stopped on purpose)
    """A run that ended before it was done, by an error that is expected; the cause is the error.

    Attributes:
        failure: what to say.
        said: whether the ranks have printed it together already.
    """

    def __init__(self, failure: Failure, said: bool = False) -> None:
        super().__init__(failure.text)
        self.failure = failure
        self.said = said

    def say(self) -> None:
        """Print what ended the run, unless that was done."""
        if self.said:
            return
        with ignore_broken_pipe():
            print(self.failure.text, file=sys.stderr)
        tell_torchrun(self.failure.text)


def expected_failure(error: BaseException, output: Path | None = None) -> Failure | None:
    """Return the message and exit code of an error, if it is an expected one.

    Args:
        error: the error.
        output: the folder that the command writes to, whose free space a full disk reports.

    Returns:
        None for an error that nobody expected, which keeps its traceback.
    """
    if isinstance(error, (UsageError, TrainingError)):
        return Failure(str(error), error.EXIT_CODE)
    if isinstance(error, KeyboardInterrupt):
        return Failure("\nstopped by Ctrl-C", INTERRUPTED)
    failure = write_failure(error)
    if failure is None:
        return None
    free = ""
    if output and is_full(error):
        free = f"; {free_bytes(output)} bytes are free in {output.resolve()}"
    text = f"stopped: {failure.why}{free}\n   fix: {failure.fix}, and run the command again"
    return Failure(text, TrainingError.EXIT_CODE)


def report_failure(error: BaseException, output: Path | None = None) -> int | None:
    """Print what ended a command, if it is an expected error, and return the exit code.

    What all ranks raise alike is printed by the first. A torchrun that is the parent repeats it.

    Args:
        error: the error.
        output: the folder that the command writes to.

    Returns:
        The exit code; None for an error that nobody expected, which keeps its traceback.
    """
    failure = expected_failure(error, output)
    if failure is None:
        return None
    if launch.rank() == 0 or not isinstance(error, (UsageError, TrainingError)):
        print(failure.text, file=sys.stderr)
    tell_torchrun(failure.text)
    return failure.code


def tell_torchrun(text: str) -> None:
    """Give torchrun, if it is the parent, the text that ends its report of a failed rank.

    Args:
        text: what this rank has printed; "" leaves the report to another rank.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not text or not path or not launch.is_by_torchrun():
        return
    shown = {"py_callstack": text, "timestamp": int(time.time())}
    with contextlib.suppress(OSError):
        write_json(Path(path), {"message": {"message": text, "extraInfo": shown}})


class _PrintableStream:
    """A text stream that writes control characters as ``printable`` shows them.

    A terminal's notes are broken between words.

    Attributes:
        stream: the stream that it writes to.
    """

    # a progress bar goes back to the beginning of its line, or to a line above
    _BAR = re.compile(r"\r|\n*(\x1b\[A)+$")

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    @classmethod
    def wrap(cls, stream: Any) -> Any:
        """Wrap a stream once; Python has None for one that was closed from the start."""
        return stream if stream is None or isinstance(stream, cls) else cls(stream)

    def write(self, text: str) -> int:
        """Write a text, printable."""
        move = self._BAR.match(text)
        start = move[0] if move else ""
        shown = printable(text[len(start) :])
        if self.stream.isatty():
            shown = note_in(shown, width_of(self.stream))
        self.stream.write(start + shown)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts, printable."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _UnbreakableStream:
    """A text stream that writes to nowhere once its pipe is broken."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @classmethod
    def wrap(cls, stream: TextIO | None) -> "_UnbreakableStream | None":
        """Wrap a stream; Python has None for one that was closed from the start."""
        return None if stream is None else cls(stream)

    def write(self, text: str) -> int:
        """Write to the stream while it has a reader."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream while it has a reader."""
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except BrokenPipeError:
            _silence(self._stream)
            print(PIPE_CLOSED, file=sys.stderr, flush=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_pipe_closed(stream: TextIO) -> bool:
    """Return whether the other end of a stream's pipe is closed."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return bool(poll.poll(0))


def _silence(stream: TextIO) -> None:
    """Redirect a stream's descriptor to the null device, also what is still buffered."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
