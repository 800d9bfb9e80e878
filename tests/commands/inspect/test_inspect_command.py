import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from llama_recipes_local.cli import main
from llama_recipes_local.commands.inspect import command
from llama_recipes_local.commands.inspect.row_display import COLOUR, PLAIN, Style


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for number in range(40):
            row = {"prompt": f"{number} and one is ", "completion": str(number + 1)}
            file.write(json.dumps(row) + "\n")
    return path


def inspect(rows: Path, model: Path, *further: str) -> int:
    flags = ["--dataset", "local_dataset", f"--local_dataset.data_path={rows}"]
    return main(["inspect", *flags, "--model_name", str(model), *further])


def test_rows_packing_audit_and_lengths_are_shown(
    rows: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    png = tmp_path / "seen.png"
    assert inspect(rows, tiny_model, "--rows", "2", "--png", str(png)) == 0
    shown = capsys.readouterr().out
    assert "records read                              38               2" in shown
    # row 0 is held out for validation
    assert "1 and one is [[2" in shown
    assert "2 and one is [[3" in shown
    assert "3 and one is" not in shown
    assert "documents," in shown and "# and = are documents by turns" in shown
    end = AutoTokenizer.from_pretrained(tiny_model)
    assert shown.count(f"the last is {end.eos_token_id} {end.eos_token!r}") == 2
    assert "tokens        rows" in shown
    assert png.read_bytes().startswith(b"\x89PNG")


def test_padding_has_no_packed_row_and_an_empty_png_flag_no_picture(
    rows: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
):
    before = set(rows.parent.parent.rglob("*"))
    further = ("--batching_strategy", "padding", "--png", "", "--rows", "100")
    assert inspect(rows, tiny_model, *further) == 0
    shown = capsys.readouterr().out
    assert "documents," not in shown
    assert shown.count("--- row") == 38
    assert ".png" not in shown
    assert set(rows.parent.parent.rglob("*")) == before


STREAMED = ("--local_dataset.streaming", "True", "--max_train_step", "1", "--max_eval_step", "1")


def test_of_a_stream_only_the_first_rows_are_shown(
    rows: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    png = tmp_path / "seen.png"
    assert inspect(rows, tiny_model, *STREAMED, "--rows", "2", "--png", str(png)) == 0
    shown = capsys.readouterr().out
    assert "not audited" in shown and "records read" not in shown
    assert "1 and one is [[2" in shown and "2 and one is [[3" in shown
    assert shown.count("--- row") == 2
    assert "documents," not in shown and not png.exists()
    # line 41, the first of its 20, is held out for validation
    rows.write_text(rows.read_text() + '{"prompt": "", "completion": ""}\n{"prompt": ')
    assert inspect(rows, tiny_model, *STREAMED) == 2
    assert f"line 42 of {rows} is not JSON" in capsys.readouterr().err


def test_rows_for_the_users_own_collator_are_not_shown(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file, png = tmp_path / "mine.py", tmp_path / "seen.png"
    file.write_text(
        "def get_custom_dataset(config, tokenizer, split):\n    return ['a picture']\n"
        "def get_data_collator(tokenizer):\n    return list\n"
    )
    flags = ["--dataset", "custom_dataset", f"--custom_dataset.file={file}", "--png", str(png)]
    further = ["--model_name", str(tiny_model), "--batching_strategy", "padding"]
    assert main(["inspect", *flags, *further]) == 0
    assert "batched by its own collator" in capsys.readouterr().out
    assert not png.exists()


@pytest.mark.parametrize(
    ("terminal", "variables", "style"),
    [(True, {}, COLOUR), (False, {}, PLAIN), (True, {"NO_COLOR": "1"}, PLAIN)],
)
def test_colours_are_for_terminals(
    terminal: bool, variables: dict[str, str], style: Style, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        command, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: terminal))
    )
    monkeypatch.setattr(command, "os", SimpleNamespace(environ=variables))
    assert command._style() is style


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--modl_name", "x"], "unknown flag --modl_name"),
        (["--context_length", "0"], "--context_length"),
        (["--tokenizer_name", "/nowhere"], "has no tokenizer"),
        (["--rows", "-1"], "--rows -1"),
        (["--rows", "two"], "--rows two"),
        (["--png", "seen.svg"], "--png seen.svg"),
        (["--png", "no/such/folder.png"], "it must be a .png file in a writable folder"),
    ],
)
def test_mistakes_are_reported_with_exit_code_2(
    rows: Path, tiny_model: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    assert inspect(rows, tiny_model, *flags) == 2
    assert said in capsys.readouterr().err


def test_the_models_weights_are_not_needed(rows: Path, tiny_model: Path, tmp_path: Path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for path in tiny_model.glob("tokenizer*"):
        (folder / path.name).write_bytes(path.read_bytes())
    before = set(Path.cwd().iterdir())
    assert inspect(rows, folder) == 0
    assert set(Path.cwd().iterdir()) == before  # no histogram that was not asked for
