"""What becomes of a command when nobody reads its output any longer, as after ``| head``.

Most have nothing else to give, and end. A training run goes on: its work is in files.
"""

import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any

from llama_recipes_local.errors import TrainingError

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
