"""``run.log`` has what a run prints and upstream's lines, which are not on the screen."""

import contextlib
import errno
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import finetuning, launch
from llama_recipes_local.run import Run, activate, log
from llama_recipes_local.run.log import LOG_FILE, RunLog, log_line, logged_output, print_detail

UPSTREAMS = ("Key: avg_train_loss", "length of dataset_train", "Num of Training Set Batches")


@contextlib.contextmanager
def a_run() -> Iterator[Run]:
    """The active run, whose output is logged."""
    with logged_output() as its_log:
        run = Run(flags={}, log=its_log)
        with activate(run):
            yield run


def logged(folder: Path) -> list[str]:
    """Return the lines of a log, without those that say when it was begun."""
    lines = (folder / LOG_FILE).read_text("utf-8").splitlines()
    return [line for line in lines if not line.startswith("--- ")]


def opened(run: Run, folder: Path, resumed: bool = False) -> None:
    assert run.log is not None
    run.log.open(folder, resumed)


def test_what_is_printed_is_logged_from_the_beginning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with a_run() as run:
        print("before there is a folder")
        opened(run, tmp_path)
        print("after", "it")
        print("an error\x1b[2J", file=sys.stderr)
        log_line("in the file alone")
    assert logged(tmp_path) == [
        "before there is a folder",
        "after it",
        r"an error\x1b[2J",
        "in the file alone",
    ]
    assert capsys.readouterr().out == "before there is a folder\nafter it\n"


@pytest.mark.parametrize("verbose", [False, True])
def test_a_detail_is_printed_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verbose: bool
) -> None:
    with a_run() as run:
        run.train.verbose = verbose
        opened(run, tmp_path)
        print_detail("Key:", 1, sep="=", end="!\n")
    assert logged(tmp_path) == ["Key:=1!"]
    assert capsys.readouterr().out == ("Key:=1!\n" if verbose else "")


def test_without_a_run_upstream_prints(capsys: pytest.CaptureFixture[str]) -> None:
    print_detail("Key:", 1)
    log_line("nowhere")
    assert capsys.readouterr().out == "Key: 1\n"


def test_a_progress_bar_is_not_logged(tmp_path: Path) -> None:
    with a_run() as run:
        opened(run, tmp_path)
        for text in ("\r10%", "\r20%", "\n\x1b[A", "a line\n"):
            sys.stdout.write(text)
    assert logged(tmp_path) == ["a line"]


def test_a_stream_that_was_closed_from_the_start_stays_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with a_run() as run:
        opened(run, tmp_path)
        print("nowhere")
        print("an error", file=sys.stderr)
    assert logged(tmp_path) == ["an error"]
    assert capsys.readouterr().err == "an error\n"


def test_a_resumed_run_continues_the_log_and_another_begins_it_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for text, resumed in (("one", False), ("two", True)):
        with logged_output() as its_log:
            its_log.open(tmp_path, resumed)
            print(text)
    assert logged(tmp_path) == ["one", "two"]
    RunLog().open(tmp_path, resumed=False)
    assert logged(tmp_path) == []


def test_a_full_disk_ends_the_log_and_not_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with a_run() as run:
        opened(run, tmp_path)
        assert run.log is not None
        run.log._file = Full()
        print("one")
        print("two")
    said = capsys.readouterr()
    assert said.out == "one\ntwo\n"
    assert said.err.count(f"{LOG_FILE} is not written any more: [Errno 28]") == 1


def test_other_ranks_log_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "rank", lambda: 1)
    its_log = RunLog()
    its_log.write("a")
    its_log.open(tmp_path, resumed=False)
    assert not (tmp_path / LOG_FILE).exists() and log.launch.rank() == 1


@pytest.mark.slow
def test_a_run_shows_neither_upstreams_lines_nor_loading_bars_but_logs_the_lines(
    tiny_run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = {"max_train_step": 2, "max_eval_step": 1, "context_length": 128, "use_peft": True}
    finetuning.main(**tiny_run, **short, output_dir=str(tmp_path / "quiet"))
    quiet = capsys.readouterr()
    text = "\n".join(logged(tmp_path / "quiet"))
    assert quiet.err == ""
    for line in UPSTREAMS:
        assert line in text and line not in quiet.out
    # all that was printed is logged, in its order
    rest = iter(text.splitlines())
    assert all(line in rest for line in quiet.out.splitlines())
    without_paths = re.sub(r"/\S+/", "", quiet.out)
    assert max(map(len, without_paths.splitlines())) <= 80

    finetuning.main(**tiny_run, **short, output_dir=str(tmp_path / "verbose"), verbose=True)
    said = capsys.readouterr()
    assert all(line in said.out for line in UPSTREAMS)
    assert "Loading weights" in said.err
