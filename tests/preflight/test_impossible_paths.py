"""Paths that no file can have, and files that are none, are refused before anything waits."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.errors import UsageError
from llama_recipes_local.model_folders.output_folder import check_output_folder
from llama_recipes_local.preflight import preflight
from llama_recipes_local.preflight.machine import check_output
from llama_recipes_local.preflight.model import check_tokenizer
from llama_recipes_local.records.any_format import records
from llama_recipes_local.run.resolution import resolve

PATHS = ("model_name", "tokenizer_name", "output_dir", "data_root", "from_peft_checkpoint")
FLAGS = (*PATHS, "resume_from_checkpoint", "data_cache", "dataset", "local_dataset.data_path")


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("path", ["a" * 300, "a/" * 3000, "\0a", "a/\0"])
def test_a_path_that_no_file_has(flag: str, path: str, tiny_run: dict[str, Any]) -> None:
    flags = {"context_length": 64, "use_peft": True, "output_dir": "out", **tiny_run}
    with pytest.raises(UsageError) as raised:
        preflight((), flags | {flag: path})
    assert all(problem.why or problem.fix for problem in raised.value.problems)


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag != "dataset"])
@pytest.mark.parametrize("word", ["False", "none"])
def test_a_word_for_a_switch_is_no_path(flag: str, word: str, tiny_run: dict[str, Any]) -> None:
    flags = {"context_length": 64, "use_peft": True, "output_dir": "out", **tiny_run}
    with pytest.raises(UsageError, match=f"--{flag} {word}\n   why: it takes the path"):
        preflight((), flags | {flag: word})


def test_a_pipe_is_no_data_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(UsageError, match="it is a pipe or a device"):
        list(records(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_pipe_is_no_file_of_a_tokenizer(name: str, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    os.mkfifo(tmp_path / "model" / name)
    (problem,) = check_tokenizer(resolve({"tokenizer_name": str(tmp_path / "model")}))
    assert f"{name} is not a JSON object" in problem.what


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2Ja", "a\tb", "\u202eb"])
def test_a_folder_whose_name_cannot_be_shown_is_not_made(
    name: str, tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    (problem,) = check_output(resolve(tiny_run | {"output_dir": str(tmp_path / name)}))
    assert "control characters cannot be shown" in problem.why
    (problem,) = check_output_folder(tmp_path / name)
    assert problem.what.startswith("--out ")
