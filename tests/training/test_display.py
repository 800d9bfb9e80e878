"""One live line in a terminal, elsewhere a line now and then; both fit their columns."""

import contextlib
import io
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from llama_recipes_local import launch
from llama_recipes_local.training import display
from llama_recipes_local.training.display import Display, Shown

SHOWN = Shown(
    step=29,
    total=69,
    epoch=0.42,
    epochs=3,
    loss=5.8066,
    grad_norm=0.064,
    lr=2e-3,
    tokens_per_second=9166.4,
    tflops=0.04,
    memory_gib=1.96,
    seconds_left=71,
)
HUGE = replace(
    SHOWN,
    step=99_999,
    total=100_000,
    loss=10.3054,
    grad_norm=123.456,
    tokens_per_second=1_234_567.0,
    tflops=412.3,
    memory_gib=139.2,
    seconds_left=360_000,
)


class Terminal(io.StringIO):
    """A terminal; its lines are those that a user sees in the end."""

    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        return [shown(line) for line in self.getvalue().split("\n")]


class NotebookOutput(io.StringIO):
    """What ipykernel has for standard output; it is no terminal."""

    encoding = "utf-8"  # type: ignore[assignment]
    pub_thread = None


def shown(line: str) -> str:
    """Return what is left of a line whose beginning was gone back to."""
    seen = ""
    for text in line.split("\r"):
        seen = text + seen[len(text) :]
    return seen.rstrip()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The current time, in seconds."""
    now = [100.0]
    monkeypatch.setattr(display.time, "perf_counter", lambda: now[0])
    return now


@contextlib.contextmanager
def terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """Standard output is a terminal; no line that is drawn in it is too long."""
    stream = Terminal()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    with contextlib.redirect_stdout(stream):
        yield stream
    widest = max(len(part) for line in stream.getvalue().split("\n") for part in line.split("\r"))
    assert 0 < widest < columns


@pytest.mark.parametrize("step", [SHOWN, HUGE, replace(HUGE, grad_norm=math.inf)])
def test_a_plain_line_fits_80_columns(step: Shown) -> None:
    line = step.line()
    assert len(line) <= 80
    for part in (f"{step.step}/{step.total}", f"{step.loss:.4f}", "tok/s", "GiB", "left "):
        assert part in line


def test_a_run_of_thousands_of_steps_shows_the_norm_in_80_columns() -> None:
    line = replace(SHOWN, step=7, total=4321, seconds_left=3599).line()
    assert line == (
        "step    7/4321  loss 5.8066  grad_norm 0.064   9,166 tok/s   2.0 GiB  left 59:59"
    )


def test_a_wide_line_has_everything() -> None:
    assert HUGE.line(140) == (
        "step  99999/100000  loss 10.3054  grad_norm 123.456  lr 2.00e-03  1,234,567 tok/s"
        "  412.3 tflops  139.2 GiB  left 100:00:00"
    )


def test_lines_keep_their_columns() -> None:
    steps = (SHOWN, replace(SHOWN, step=1, tokens_per_second=90_000, grad_norm=1.23))
    assert len({step.line().index("left") for step in steps}) == 1


@pytest.mark.parametrize("tflops", [None, 0.0, 0.04])
def test_a_rate_that_says_nothing_is_not_shown(tflops: float | None) -> None:
    assert "tflops" not in replace(SHOWN, tflops=tflops).line(200)


def test_plain_lines_come_now_and_then_the_first_and_the_last_in_any_case(
    capsys: pytest.CaptureFixture[str], now: list[float]
) -> None:
    with Display() as shows:
        for step in range(1, 10):
            now[0] += 4.0
            shows.step(replace(SHOWN, step=step, total=9))
    printed = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert printed == ["1/9", "4/9", "7/9", "9/9"]


def test_a_long_validation_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], now: list[float]
) -> None:
    with Display() as shows:
        for done in range(45):
            shows.validating(done, 45, done * 0.5)
            now[0] += 0.5
        shows.validated(1.2073, 3.344, 0, 22.5)
    assert capsys.readouterr().out.splitlines() == [
        "validating on 45 batches",
        "validating  20/45 batches  left 0:12",
        "validating  40/45 batches  left 0:02",
        "validation loss 1.2073  perplexity 3.344  before training  in 22.5 s",
    ]


@pytest.mark.parametrize("columns", [80, 100])
def test_a_terminal_has_one_live_line_below_what_is_printed(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal(columns, monkeypatch) as screen, Display() as shows:
        shows.validating(0, 45, 0.0)
        shows.validating(9, 45, 3.0)
        assert screen.lines()[-1].startswith("validating  20%|")
        assert screen.lines()[-1].endswith("| 9/45  left 0:12")
        shows.validated(1.2073, 3.344, 0, 22.5)
        for step in (1, 2, 29):
            shows.step(replace(SHOWN, step=step))
        assert screen.lines()[-1].startswith("epoch 1/3  42%|")
        for part in ("29/69", "loss 5.8066", "9,166 tok/s", "2.0 GiB", "left 1:11"):
            assert part in screen.lines()[-1]
        print("--> a line of another")
        shows.step(replace(SHOWN, step=30))
        assert screen.lines()[-1].startswith("epoch 1/3")
        shows.step(replace(SHOWN, step=69))
    lines = screen.lines()
    assert lines[0].startswith("validation loss 1.2073")
    assert [line.split()[:2] for line in lines[1:]] == [
        ["step", "1/69"],
        ["-->", "a"],
        ["step", "69/69"],
        [],
    ]


def test_a_warning_stands_above_the_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        terminal(80, monkeypatch) as screen,
        contextlib.redirect_stderr(screen),
        Display() as shows,
    ):
        for step in (1, 2):
            shows.step(replace(SHOWN, step=step))
        print("a warning", file=sys.stderr)
        shows.step(replace(SHOWN, step=69))
    lines = [line.split()[:2] for line in screen.lines()]
    assert lines == [["step", "1/69"], ["a", "warning"], ["step", "69/69"], []]


def test_a_notebook_has_one_live_line_and_no_return_within_what_is_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = NotebookOutput()
    request = {"content": {"allow_stdin": True}}
    shell = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: request))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    monkeypatch.setenv("TERM", "xterm-color")
    with contextlib.redirect_stdout(stream), Display() as shows:
        for step in (1, 2, 29):
            shows.step(replace(SHOWN, step=step))
        assert stream.getvalue().rpartition("\r")[2].startswith("epoch 1/3  42%|")
        print("--> a line of another")
        shows.step(replace(SHOWN, step=69))
    # what comes after a return replaces the line: a line's end would be lost after one
    assert "\r\n" not in stream.getvalue()
    lines = [shown(line).split()[:2] for line in stream.getvalue().split("\n")]
    assert lines == [["step", "1/69"], ["-->", "a"], ["step", "69/69"], []]


@pytest.mark.parametrize("columns", [80, 100])
def test_the_live_line_of_a_huge_run_fits(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(columns, monkeypatch) as screen, Display() as shows:
        shows.step(SHOWN)
        shows.step(HUGE)
        assert "99999/100000  loss 10.3054" in screen.lines()[-1]


@pytest.mark.parametrize("columns", [80, 100])
def test_what_was_printed_stays_when_a_run_fails(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        terminal(columns, monkeypatch) as screen,
        pytest.raises(RuntimeError),
        Display() as shows,
    ):
        shows.step(SHOWN)
        shows.step(replace(SHOWN, step=30))
        raise RuntimeError
    assert [line[:4] for line in screen.lines()] == ["step", ""]


@pytest.mark.parametrize("case", ["a dumb terminal", "another rank"])
def test_who_has_no_live_line(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setenv("TERM", "dumb" if case == "a dumb terminal" else "xterm")
    monkeypatch.setattr(launch, "rank", lambda: int(case == "another rank"))
    with contextlib.redirect_stdout(stream), Display() as shows:
        shows.validating(1, 2, 1.0)
        for step in (1, 2):
            shows.step(replace(SHOWN, step=step))
    assert "\r" not in stream.getvalue()
    assert bool(stream.getvalue()) == (case == "a dumb terminal")
