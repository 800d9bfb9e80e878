"""Own rows: written, configured, and read as training reads them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.configs.datasets import local_dataset
from llama_recipes_local.datasets.examples import Example
from llama_recipes_local.datasets.local import split as local_split
from llama_recipes_local.errors import Problem, UsageError


def write(file: Path, *records: Any) -> str:
    """Write records as JSON lines, and return the file's path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return str(file)


def configured(path: Any, **fields: Any) -> local_dataset:
    """A configuration in which no row is held out."""
    return replace(local_dataset(data_path=str(path), validation_path=str(path)), **fields)


def examples(config: local_dataset, tokenizer: Any, part: str = "train") -> list[Example | None]:
    split = local_split(config, part)
    return [split.formatter(record, tokenizer) for record in split.records()]


def rows(config: local_dataset, part: str) -> list[str]:
    """The texts of a split's records."""
    return [record["text"] for _, record in local_split(config, part).records()]


def refused(config: local_dataset, tokenizer: Any = None, part: str = "train") -> Problem:
    with pytest.raises(UsageError) as refusal:
        examples(config, tokenizer, part)
    (problem,) = refusal.value.problems
    return problem
