"""Shows the progress of a run: a live line in a terminal or notebook, plain lines elsewhere.

A plain line fits into 80 columns. If a line would be longer, its least important parts are left
out, also from the live line in a narrow terminal. ``run.log`` gets the plain lines in both cases.
"""

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TextIO

from tqdm import tqdm

from llama_recipes_local.parallel import is_rank_zero
from llama_recipes_local.run.log import log_line
from llama_recipes_local.screen import COLUMNS, clock, fitting, redraws, width_of

SECONDS_BETWEEN_LINES = 10.0
"""Between plain lines. The live line is drawn whenever there is something new."""

BAR_COLUMNS = 6  # of the bar at least


@dataclass(frozen=True)
class Shown:
    """The numbers of a step that are shown.

    Attributes:
        step: steps done, of ``total``.
        total: steps of the run.
        epoch: epochs done, as a fraction, of ``epochs``.
        epochs: epochs of the run.
        loss: of the step.
        grad_norm: before clipping; infinite where it overflowed.
        lr: learning rate.
        tokens_per_second: over all ranks.
        tflops: per device; None if not counted.
        memory_gib: of this rank.
        seconds_left: of the steps that are left.
    """

    step: int
    total: int
    epoch: float
    epochs: int
    loss: float
    grad_norm: float
    lr: float
    tokens_per_second: float
    tflops: float | None
    memory_gib: float
    seconds_left: float

    def line(self, width: int = COLUMNS) -> str:
        """Return a line whose columns are mostly the same for every step of the run."""
        digits = len(str(self.total))
        return fitting(
            [
                (0, f"step {self.step:>{digits}}/{self.total}"),
                (0, f"loss {self.loss:6.4f}"),
                (5, f"grad_norm {self.grad_norm:5.3f}"),
                (6, f"lr {self.lr:.2e}"),
                (1, f"{self.tokens_per_second:6,.0f} tok/s"),
                *((7, text) for text in self._tflops()),
                (3, f"{self.memory_gib:4.1f} GiB"),
                (2, f"left {clock(self.seconds_left)}"),
            ],
            width,
        )

    def beside_bar(self, width: int) -> str:
        """Return the text to the right of the bar."""
        return fitting(
            [
                (0, f"{self.step}/{self.total}"),
                (1, f"loss {self.loss:.4f}"),
                (5, f"grad_norm {self.grad_norm:.3f}"),
                (6, f"lr {self.lr:.1e}"),
                (3, f"{self.tokens_per_second:,.0f} tok/s"),
                *((7, text) for text in self._tflops()),
                (4, f"{self.memory_gib:.1f} GiB"),
                (2, f"left {clock(self.seconds_left)}"),
            ],
            width,
        )

    def _tflops(self) -> Iterator[str]:
        # below one they say nothing: of a CPU, or of a model that is too small for its device
        if self.tflops is not None and self.tflops >= 1:
            yield f"{self.tflops:5.1f} tflops"


class Display:
    """Shows steps and validations, on the first rank."""

    def __init__(self, live: bool = True) -> None:
        """Show a live line where one can be drawn, unless ``live`` is false."""
        self._bar: _Bar | None = None
        self._stack = contextlib.ExitStack()
        self._last_line = -math.inf
        self._first = True
        self._on = is_rank_zero()
        self._live = live and os.environ.get("TERM") != "dumb"

    def __enter__(self) -> "Display":
        if self._on and self._live and redraws(sys.stdout):
            self._bar = self._stack.enter_context(_live_line())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
        self._bar = None

    def step(self, shown: Shown) -> None:
        """Show a step; the first and the last are printed as lines in every case."""
        if not self._on:
            return
        first, self._first = self._first, False
        last = shown.step >= shown.total
        if self._bar is not None and not last:
            epoch = f"epoch {max(math.ceil(shown.epoch), 1)}/{shown.epochs}"
            self._bar.draw(epoch, shown.step, shown.total, shown.beside_bar)
        if first or last or self._is_time():
            self._print(shown.line(), live=not first and not last)

    def validating(self, done: int, total: int, seconds: float) -> None:
        """Show the progress of a validation.

        Args:
            done: batches done, of ``total``.
            total: batches.
            seconds: that it has taken.
        """
        if not self._on:
            return
        left = f"  left {clock(seconds / done * (total - done))}" if done else ""
        if self._bar is not None:
            self._bar.draw("validating", done, total, lambda width: f"{done}/{total}{left}")
        if not done:
            self._print(f"validating on {total} batch{'es' * (total != 1)}", live=True)
        elif self._is_time():
            self._print(f"validating  {done}/{total} batches{left}", live=True)

    def validated(
        self,
        loss: float,
        perplexity: float,
        step: int,
        seconds: float,
        by_source: Mapping[str, float] | None = None,
    ) -> None:
        """Print the result of a validation after ``step`` steps; for a mixture also by source."""
        if self._on:
            when = f"after step {step}" if step else "before training"
            self._print(
                f"validation loss {loss:.4f}  perplexity {perplexity:.3f}  {when}"
                f"  in {seconds:.1f} s"
            )
            if by_source:
                each = (f"{name} {loss:.4f}" for name, loss in by_source.items())
                self._print(f"  of {', '.join(each)}")

    def answered(self, rows: int, scores: Mapping[str, float], seconds: float) -> None:
        """Print the metrics of a validation's answers."""
        if self._on:
            shown = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
            self._print(f"answers to {rows} rows: {shown}  in {seconds:.1f} s")

    def _is_time(self) -> bool:
        return time.perf_counter() - self._last_line >= SECONDS_BETWEEN_LINES

    def _print(self, line: str, live: bool = False) -> None:
        """Print a line, or only log it if the live line shows the same."""
        self._last_line = time.perf_counter()
        if live and self._bar is not None:
            log_line(line)
        else:
            print(line, flush=True)


class _Bar:
    """A live line with progress, a bar and numbers, fitted to the terminal's width."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: tqdm[Any] | None = None
        self._drawn = False

    def draw(self, title: str, done: int, total: int, numbers: Callable[[int], str]) -> None:
        """Draw the line again.

        Args:
            title: what stands to the left of the bar.
            done: of ``total``.
            total: what a full bar is.
            numbers: returns what stands to its right, given how many columns there are.
        """
        width = width_of(self._stream) - len("^C") - 1
        if self._bar is None:
            # delay: nothing is drawn before there is something to show
            self._bar = _Tqdm(file=self._stream, leave=False, mininterval=0, delay=1e-9)
        bar = self._bar
        room = width - len(f"{title} 100%|| ") - BAR_COLUMNS
        text = numbers(room).replace("{", "{{").replace("}", "}}")
        bar.ncols, bar.n, bar.total = width, done, total
        bar.bar_format = title + "{percentage:4.0f}%|{bar}| " + text
        bar.refresh()
        self._drawn = True

    def clear(self) -> None:
        """Remove the line, to be drawn again with the next numbers."""
        if self._bar is not None and self._drawn:
            self._bar.clear()
            self._drawn = False

    def close(self) -> None:
        """Remove the line for good."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Tqdm(tqdm):  # type: ignore[type-arg]
    """A bar without tqdm's thread, which redraws lines even without news."""

    monitor_interval = 0


class _AboveLine:
    """A text stream that removes the live line before it writes, so the text appears above it."""

    def __init__(self, stream: TextIO, bar: _Bar) -> None:
        self._stream = stream
        self._bar = bar

    def write(self, text: str) -> int:
        """Write a text."""
        self._bar.clear()
        return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _live_line() -> Iterator[_Bar]:
    """Show a live line below everything that the block prints."""
    bar = _Bar(sys.stdout)
    out: Any = _AboveLine(sys.stdout, bar)
    with contextlib.ExitStack() as stack:
        stack.callback(bar.close)
        stack.enter_context(contextlib.redirect_stdout(out))
        if redraws(sys.stderr):
            err: Any = _AboveLine(sys.stderr, bar)
            stack.enter_context(contextlib.redirect_stderr(err))
        yield bar
