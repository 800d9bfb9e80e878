"""``run.log`` in the output folder: everything that a run prints, and upstream's own lines.

Upstream's lines appear on the screen only with ``--verbose``: they repeat what this package prints,
in words that only readers of upstream's source understand. Progress bars are not logged.
"""

import builtins
import contextlib
import io
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from llama_recipes_local import launch
from llama_recipes_local.errors import printable
from llama_recipes_local.run import active_run

LOG_FILE = "run.log"


class RunLog:
    """Keeps what is printed before the run has a folder, then writes to the log file in it.

    If the file cannot be written, as on a full disk, the run continues, and this is printed once.
    """

    def __init__(self) -> None:
        self._early: list[str] | None = [] if launch.rank() == 0 else None
        self._file: TextIO | None = None

    def open(self, output: Path, resumed: bool) -> None:
        """Start the file, or append to that of a resumed run, with what was printed so far."""
        early, self._early = self._early, None
        if early is None:
            return
        with self._only_noted():
            self._file = (output / LOG_FILE).open(
                "a" if resumed else "w", encoding="utf-8", buffering=1
            )
            self._file.write(f"--- {time.strftime('%F %T')}\n")
        for text in early:
            self.write(text)

    def write(self, text: str) -> None:
        """Log a text."""
        if self._early is not None:
            self._early.append(text)
        elif self._file is not None:
            with self._only_noted():
                self._file.write(printable(text))

    def close(self) -> None:
        """Close the file."""
        file, self._file, self._early = self._file, None, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    @contextlib.contextmanager
    def _only_noted(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.close()
            print(f"--> {LOG_FILE} is not written any more: {error}", file=sys.stderr)


@contextlib.contextmanager
def logged_output() -> Iterator[RunLog]:
    """Also write to a log what the block prints, on both streams."""
    log = RunLog()
    out, err = _LoggedStream.wrap(sys.stdout, log), _LoggedStream.wrap(sys.stderr, log)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield log
        finally:
            log.close()


def log_line(line: str) -> None:
    """Write a line only into the active run's log; without a run, nowhere."""
    run = active_run()
    if run is not None and run.log is not None:
        run.log.write(f"{line}\n")


def print_detail(*values: object, **options: Any) -> None:
    """Print as the builtin does; without ``verbose``, only into the active run's log.

    Upstream's modules use this as ``print``.
    """
    run = active_run()
    if run is None or run.log is None or run.train.verbose or "file" in options:
        builtins.print(*values, **options)
        return
    text = io.StringIO()
    builtins.print(*values, **options | {"file": text})
    run.log.write(text.getvalue())


class _LoggedStream:
    """A text stream that is logged, but for the lines that a progress bar draws again."""

    def __init__(self, stream: TextIO, log: RunLog) -> None:
        self._stream = stream
        self._log = log

    @classmethod
    def wrap(cls, stream: Any, log: RunLog) -> Any:
        """Wrap a stream; Python has None for one that was closed from the start."""
        return None if stream is None else cls(stream, log)

    def write(self, text: str) -> int:
        """Write a text, and log it."""
        if not text.startswith(("\r", "\x1b[A", "\n\x1b[A")):
            self._log.write(text)
        return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts, and log them."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
