"""``llama-recipes-local convert`` in this process, and its result."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llama_recipes_local import cli


def convert(*words: object) -> None:
    assert cli.main(["convert", *map(str, words)]) == 0


def refused(capsys: pytest.CaptureFixture[str], out: Path, *words: object) -> str:
    capsys.readouterr()
    assert cli.main(["convert", *map(str, words), "--out", str(out)]) == 2
    assert not out.exists()
    return capsys.readouterr().err


def assert_same(ours: Path, theirs: dict[str, torch.Tensor]) -> None:
    """Compare the tensors of a model's file bit by bit."""
    found = load_file(ours / "model.safetensors")
    assert found.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert found[name].dtype == tensor.dtype and found[name].equal(tensor), name


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
