"""Rows that cannot be used: all kinds in one report, or left out and counted."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.configs.datasets import local_dataset
from llama_recipes_local.datasets.file_checks import check_files
from llama_recipes_local.datasets.local import DATASET, split
from llama_recipes_local.datasets.tokenized_splits import load_split
from llama_recipes_local.errors import UsageError

GOOD = {"prompt": "a", "completion": "b"}
ROWS = [
    "not JSON at all",
    *[json.dumps(GOOD)] * 3,
    json.dumps({"prompt": "a"}),
    json.dumps(GOOD),
    "[1]",
    json.dumps({"prompt": "a", "completion": 42}),
    json.dumps({"prompt": "a", "completion": ["b"]}),
    json.dumps({"prompt": "a", "completion": ""}),
    json.dumps({"prompt": "a", "completion": None}),
    '{"prompt": "a", "compl',
]


@pytest.fixture
def config(tmp_path: Path) -> local_dataset:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(ROWS))
    return local_dataset(data_path=str(path), validation_path=str(path), template="none")


def test_every_kind_is_in_one_report(config: local_dataset, tokenizer: Any) -> None:
    problems = check_files(DATASET, config, tokenizer=tokenizer)
    kinds = {problem.what.replace(f" of {config.data_path}", ""): problem for problem in problems}
    assert set(kinds) == {
        "line 1 is not JSON",
        "line 5 has no 'completion'",
        "line 7 is not a JSON object",
        "'completion' in line 8 is not text",
    }
    assert "2 records are so: line 1, line 12" in kinds["line 1 is not JSON"].why
    assert "2 records are so: line 8, line 9" in kinds["'completion' in line 8 is not text"].why
    flag = "leave such rows out: --local_dataset.skip_bad_rows=True"
    assert all(flag in problem.fix for problem in problems)


def test_bad_rows_are_left_out_and_counted(
    config: local_dataset, tokenizer: Any, tmp_path: Path
) -> None:
    skipping = replace(config, skip_bad_rows=True)
    assert not check_files(DATASET, skipping, tokenizer=tokenizer)
    loaded = load_split(split(skipping, "train"), tokenizer, cache=str(tmp_path / "cache"))
    assert (loaded.audit.rows, loaded.audit.counts.bad, loaded.audit.counts.blank) == (4, 6, 2)
    assert loaded.audit.counts.records == len(ROWS)


def test_rows_of_a_table_with_other_columns(tmp_path: Path, tokenizer: Any) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\na,b\na\na,b,c\na,b\na,b,c\n")
    config = local_dataset(data_path=str(path), validation_path=str(path), template="none")
    with pytest.raises(UsageError) as refusal:
        load_split(split(config, "train"), tokenizer, cache=str(tmp_path / "cache"))
    (problem, other) = refusal.value.problems
    assert problem.what == f"line 3 of {path} has 1 column"
    assert "2 records are so: line 4, line 6" in other.why
    loaded = load_split(
        split(replace(config, skip_bad_rows=True), "train"), tokenizer, cache=str(tmp_path / "c")
    )
    assert (loaded.audit.rows, loaded.audit.counts.bad) == (2, 3)
