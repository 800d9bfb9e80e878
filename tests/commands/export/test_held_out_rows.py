"""An export is measured on the validation rows of its run, or of the data set that is named."""

import json
import re
from pathlib import Path
from typing import Any

import peft
import pytest
from llama_families import build
from transformers import AutoModelForCausalLM

from llama_recipes_local.cli import main

pytest.importorskip("gguf", reason="the package gguf is missing")
ROWS = [{"input": f"she go to {n}", "target": f"She goes to {n}."} for n in range(30)]


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter that changes nothing, with the record of a run on a file beside it."""
    folder = build("Llama 3.1", tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    config = peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(model, config).save_pretrained(str(tmp_path / "adapter"))
    data = tmp_path / "data.json"
    data.write_text(json.dumps(ROWS))
    record = {
        "train_config": {"model_name": str(folder), "dataset": "local_dataset"},
        "local_dataset": {"data_path": str(data)},
    }
    (tmp_path / "adapter" / "run_config.json").write_text(json.dumps(record))
    return tmp_path / "adapter"


def export(folder: Path, out: Path, *words: str, flag: str = "--adapter") -> int:
    given = [flag, str(folder), "--type", "f16", "--out", str(out), *words]
    return main(["export", *given])


def outputs(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "certificate.json").read_text())["outputs"]
    return found


def test_the_rows_are_those_that_the_run_held_out(adapter: Path, tmp_path: Path) -> None:
    assert export(adapter, tmp_path / "out") == 0
    found = outputs(tmp_path / "out")
    assert found["source"] == "validation data of local_dataset"
    assert any("she go to" in each["prompt"] for each in found["answers"])
    assert found["rows"] < 30 and found["tokens"] > found["rows"]


def test_data_that_is_gone_is_said(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.json").unlink()
    assert export(adapter, tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "the package's own questions, not the run's data" in said and "data.json" in said
    assert outputs(tmp_path / "out")["source"] == "the package's own questions"


def test_a_data_set_that_is_named_is_taken_or_refused(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    words = ["--dataset", str(tmp_path / "data.json")]
    assert export(model, tmp_path / "out", *words, flag="--model_name") == 0
    assert outputs(tmp_path / "out")["source"] == "validation data of local_dataset"
    (tmp_path / "data.json").unlink()
    assert export(model, tmp_path / "out", *words, flag="--model_name") == 2
    said = capsys.readouterr().err
    assert "2 problems found" in said  # the folder, and the data
    assert "data.json" in said and "is not empty" in said


def test_without_rounding_nothing_is_measured(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "--adapter", str(adapter), "--out", str(tmp_path / "out")]
    assert main([*words, "--format", "safetensors", "--dataset", "samsum_dataset"]) == 2
    assert "--dataset with --format safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["samsum_dataset", "custom_dataset", "columns"])
def test_data_that_is_wrong_is_not_fixed_by_a_flag_that_export_lacks(
    name: str, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "columns":
        name = str(tmp_path / "rows.jsonl")
        Path(name).write_text(json.dumps({"first": 1, "second": 2}))
    assert export(adapter, tmp_path / "out", "--dataset", name) == 2
    said = capsys.readouterr().err
    assert not re.search(r"--\w+_dataset\.", said) and "known: --dataset PATH" in said
