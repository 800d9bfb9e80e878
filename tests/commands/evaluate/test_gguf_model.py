"""A GGUF file is measured as the folder that ``convert`` makes of it, and nothing is left of it."""

import json
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from llama_families import build

from llama_recipes_local.cli import main
from llama_recipes_local.commands.evaluate import gguf_model
from llama_recipes_local.errors import UsageError

pytest.importorskip("gguf", reason="the package gguf is missing")
pytest.importorskip("scipy", reason="the package scipy is missing")
ROWS = [{"input": f"she go to {n}", "target": f"She goes to {n}."} for n in range(40)]


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's file, and data beside it."""
    folder = build("Llama 3.2", tmp_path / "model")
    (tmp_path / "data.json").write_text(json.dumps(ROWS))
    words = ["--model_name", str(folder), "--type", "q8_0", "--out", str(tmp_path / "out")]
    assert main(["export", *words]) == 0
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return next((tmp_path / "out").glob("*.gguf"))


def evaluate(model: Path, out: Path) -> dict[str, Any]:
    words = ["--model_name", str(model), "--dataset", str(out.parent / "data.json")]
    words += ["--metrics", "loss,perplexity,rouge", "--max_new_tokens", "8"]
    assert main(["evaluate", *words, "--out", str(out)]) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_a_file_gives_what_its_folder_gives(exported: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    assert main(["convert", str(exported), "--out", str(back), "--dtype", "float32"]) == 0
    ours, theirs = (evaluate(model, tmp_path / f"{model.name}.json") for model in (exported, back))
    assert ours["metrics"] == theirs["metrics"] and len(ours["metrics"]) > 3
    assert ours["documents"] == theirs["documents"] and ours["documents"]
    assert ours["answers"] == theirs["answers"] and ours["answers"]
    assert ours["about"]["train_config"]["model_name"] == str(exported)
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dataset", "nope"], ["unknown --dataset nope"]),
        ([], ["no data set was named"]),
        (["--dataset", "grammar_dataset", "--adapter", "run"], ["--adapter with the GGUF file"]),
    ],
)
def test_all_that_is_wrong_is_said_at_once(
    words: list[str],
    said: list[str],
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    exported.write_bytes(exported.read_bytes()[:2000])
    assert main(["evaluate", "--model_name", str(exported), *words]) == 2
    found = capsys.readouterr().err
    assert all(each in found for each in said)
    assert "cannot be read as GGUF" in found or "--adapter" in words
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("free", [10, None])
def test_weights_that_do_not_fit_on_the_disk_are_refused(
    free: int | None, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_model, "free_bytes", lambda folder: free)
    refused = pytest.raises(UsageError, match="not enough disk space") if free else nullcontext()
    with refused, gguf_model.opened(exported, None) as opened:
        assert opened.path == exported


def test_a_file_that_is_missing_is_said_with_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "none.gguf")
    assert main(["evaluate", "--model_name", path, "--dataset", "nope"]) == 2
    found = capsys.readouterr().err
    assert "2 problems found" in found
    assert "none.gguf does not exist" in found and "unknown --dataset nope" in found
