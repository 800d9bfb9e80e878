"""What is fitted to a terminal's columns: lines, boxes, commands, paths."""

import io
import shlex
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llama_recipes_local.screen import (
    box,
    clock,
    columns_of,
    encodable,
    fitting,
    note_in,
    redraws,
    shell_command,
    shown_path,
)


def test_chinese_takes_two_columns_and_an_accent_none() -> None:
    assert [columns_of(text) for text in ("abc", "中文", "e\u0301", "\uff41")] == [3, 4, 1, 2]


@pytest.mark.parametrize(("seconds", "written"), [(0.4, "0:00"), (59.6, "1:00"), (3725, "1:02:05")])
def test_clock(seconds: float, written: str) -> None:
    assert clock(seconds) == written


def test_a_line_that_is_too_short_leaves_out_what_matters_least() -> None:
    parts = [(0, "step 1/9"), (2, "lr 1e-4"), (1, "loss 2.0"), (3, "norm")]
    assert fitting(parts, 80) == "step 1/9  lr 1e-4  loss 2.0  norm"
    assert fitting(parts, 27) == "step 1/9  lr 1e-4  loss 2.0"
    assert fitting(parts, 26) == "step 1/9  loss 2.0  norm"  # the next one that fits
    assert fitting(parts, 10) == "step 1/9"


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize(
    "line",
    ["short", "label   " + "several words " * 20, "答案" * 60, "label   " + "中文 and more " * 9],
)
def test_each_line_of_a_box_ends_in_its_last_column(line: str, width: int) -> None:
    lines = box("done", [["first", line], ["another"]], width).splitlines()
    assert {columns_of(each) for each in lines} == {width}
    inside = "".join(each[2:-2].strip() for each in lines[1:-1])
    assert inside.replace(" ", "") == f"first{line}another".replace(" ", "")


def test_the_second_column_stays_one() -> None:
    lines = box("done", [["name      " + "word " * 40]]).splitlines()[1:-1]
    assert len(lines) > 2
    assert all(line.startswith("│ " + " " * 10 + "word") for line in lines[1:])


def test_a_note_is_broken_between_words_and_a_fix_is_not() -> None:
    note = "--> removed from out: " + ", ".join(f"file-{number}.json" for number in range(9))
    lines = note_in(f"{note}\n    it was old\n", 60).splitlines()
    assert [line[:4] for line in lines] == ["--> ", "    ", "    ", "    "]
    assert max(map(len, lines)) <= 60 and "  " not in " ".join(line.strip() for line in lines)
    assert " ".join(line.strip() for line in lines) == f"{note} it was old"
    assert note_in(note, 200) == note
    fix = "   fix: " + "a command of many words " * 9
    assert note_in(fix, 60) == fix


def test_a_path_is_not_broken() -> None:
    path = "/a/very/long/path" * 10
    lines = box("done", [[f"saved in  {path}", "report    here"]]).splitlines()
    assert lines[1] == f"│ saved in  {path}"  # no edge of the frame far to the right
    assert columns_of(lines[2]) == 80


@pytest.mark.parametrize(
    "words",
    [
        ["program", "generate", "--prompt", "She go to school."],
        ["program", "generate", "--adapter", "/a/long path/" * 5, "--prompt", "it's 'so' $HOME \\"],
        ["/very" * 30, "merge", "--adapter", "x", "--flag", "--out", "y" * 50],
    ],
)
def test_a_command_on_several_lines_is_the_same_command(words: list[str]) -> None:
    text = shell_command(words)
    assert shlex.split(text.replace(" \\\n", " ")) == words
    longest = max(len(shlex.quote(f"{a} {b}")) + 8 for a, b in pairwise(words))
    assert max(map(len, text.splitlines())) <= max(80, longest)


def test_a_path_is_shown_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_path(Path("outputs/x")) == "outputs/x"
    assert shown_path(tmp_path.parent) == str(tmp_path.parent)


def test_a_frame_is_ascii_where_nothing_else_can_be_encoded() -> None:
    text = box("done", [["naïve"]])
    for encoding, corner in (("utf-8", "╭"), ("latin-1", "+"), ("ascii", "+")):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        assert encodable(text, stream).startswith(corner)


@pytest.mark.parametrize("attended", [True, False])
def test_a_line_is_drawn_again_in_a_notebook_that_someone_sees(
    attended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = {"content": {"allow_stdin": attended}}
    shell = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: request))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    output: Any = SimpleNamespace(isatty=lambda: False, pub_thread=None)
    assert redraws(output) is attended
    assert not redraws(io.StringIO())
