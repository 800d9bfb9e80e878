"""A data set of the user's own is what the user's function returns, and what ran is said."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import configs
from llama_recipes_local._upstream import load
from llama_recipes_local.errors import UsageError
from llama_recipes_local.storage import data_root
from llama_recipes_local.utils.dataset_utils import (
    get_custom_data_collator,
    get_preprocessed_dataset,
)

CUSTOM = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Row:
    ids: list[int]

def get_custom_dataset(dataset_config, tokenizer, split):
    ids = Row(tokenizer.encode(split)).ids
    return [{"input_ids": ids, "labels": ids, "attention_mask": [1] * len(ids)}]

def another(dataset_config, tokenizer, split):
    return [{"input_ids": [1], "labels": [1], "attention_mask": [1]}] * 3

def broken(dataset_config, tokenizer, split):
    return dataset_config.no_such_field
"""
COLLATOR = """
def get_data_collator(processor):
    return lambda rows: (processor.eos_token, rows)
"""


@pytest.fixture
def custom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(data_root.ENVIRONMENT_VARIABLE, str(tmp_path))
    file = tmp_path / "mine.py"
    file.write_text(CUSTOM.replace("from __future__ import annotations\n", ""), "utf-8")
    return file


def test_data_from_a_file_is_upstreams(custom: Path, tokenizer: Any) -> None:
    config = configs.custom_dataset(file="mine.py")
    theirs = load("datasets.custom_dataset").get_custom_dataset
    for split, name in (("train", "train"), ("test", "validation")):
        ours = get_preprocessed_dataset(tokenizer, config, split)
        assert list(ours) == theirs(configs.custom_dataset(file=str(custom)), tokenizer, name)
        assert ours[0]["input_ids"] == tokenizer.encode(name)


def test_dataclasses_with_annotations_as_text(custom: Path, tokenizer: Any) -> None:
    custom.write_text(CUSTOM, "utf-8")  # a module that nobody can look up fails here
    assert get_preprocessed_dataset(tokenizer, configs.custom_dataset(file="mine.py"))


def test_data_from_a_function(
    custom: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configs.custom_dataset(file="mine.py:another")
    assert len(get_preprocessed_dataset(tokenizer, config)) == 3
    digest = hashlib.sha256(custom.read_bytes()).hexdigest()
    assert f"runs another of {custom} (sha256 {digest})" in capsys.readouterr().out
    assert config.file == "mine.py:another"


def test_a_file_runs_once_for_each_content(
    custom: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configs.custom_dataset(file="mine.py")
    custom.write_text(CUSTOM + COLLATOR + 'print("it runs")\n', "utf-8")
    get_preprocessed_dataset(tokenizer, config, "train")
    get_preprocessed_dataset(tokenizer, config, "test")
    get_custom_data_collator(tokenizer, config)
    assert capsys.readouterr().out.count("it runs") == 1
    custom.write_text(CUSTOM + 'print("it runs, changed")\n', "utf-8")
    get_preprocessed_dataset(tokenizer, config, "train")
    assert capsys.readouterr().out.count("it runs, changed") == 1


def test_two_files_with_one_content_are_two_modules(tmp_path: Path, tokenizer: Any) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("def get_custom_dataset(c, t, s): return [__file__]", "utf-8")
        config = configs.custom_dataset(file=str(tmp_path / name))
        assert get_preprocessed_dataset(tokenizer, config, "train")[0] == str(tmp_path / name)


def test_a_file_that_fails_fails_again(custom: Path, tokenizer: Any) -> None:
    custom.write_text("import no_such_module\n", "utf-8")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            get_preprocessed_dataset(tokenizer, configs.custom_dataset(file="mine.py"))


def test_a_missing_function(custom: Path, tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="defines no function rows"):
        get_preprocessed_dataset(tokenizer, configs.custom_dataset(file="mine.py:rows"))


def test_a_function_that_returns_nothing(custom: Path, tokenizer: Any) -> None:
    custom.write_text("def get_custom_dataset(config, tokenizer, split): ...", "utf-8")
    with pytest.raises(
        UsageError, match=r"get_custom_dataset of .* returned no data set for train"
    ):
        get_preprocessed_dataset(tokenizer, configs.custom_dataset(file="mine.py"))


def test_an_error_of_the_users_function_is_left_as_it_is(
    custom: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AttributeError, match="no_such_field"):
        get_preprocessed_dataset(tokenizer, configs.custom_dataset(file="mine.py:broken"))
    assert "not present" not in capsys.readouterr().out


@pytest.mark.parametrize("function", ["", ":another"])
def test_the_collator(function: str, custom: Path, tokenizer: Any) -> None:
    custom.write_text(CUSTOM + COLLATOR, "utf-8")
    collate = get_custom_data_collator(tokenizer, configs.custom_dataset(file=f"mine.py{function}"))
    assert collate([1, 2]) == ("</s>", [1, 2])


@pytest.mark.parametrize("function", ["", ":another"])
def test_without_a_collator_there_is_none(function: str, custom: Path, tokenizer: Any) -> None:
    config = configs.custom_dataset(file=f"mine.py{function}")
    assert get_custom_data_collator(tokenizer, config) is None
