"""Alpaca: instructions, some with an input, and their outputs; the first 5% is for validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from llama_recipes_local._upstream import load, load_alone
from llama_recipes_local.datasets.base import Dataset, Split, is_blank, text_of, unused_columns
from llama_recipes_local.datasets.examples import Continuation
from llama_recipes_local.datasets.locating import data_files_in, what_is_there
from llama_recipes_local.datasets.prompt_template import PLACE, PROMPT, PromptTemplate
from llama_recipes_local.errors import UsageError, refusal
from llama_recipes_local.fields import FOLDER, TEXT, Resume
from llama_recipes_local.messages import join_names, missing_path
from llama_recipes_local.records.any_format import Record, records
from llama_recipes_local.storage import data_root

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llama_recipes_local._vendor.llama_recipes.configs.datasets import (
        alpaca_dataset as _upstreams,
    )
else:
    _upstreams = load_alone("configs.datasets").alpaca_dataset

NAME = "alpaca_data"
COLUMNS = ("instruction", "input", "output")
ACCEPTED = f"read is {NAME}.json, a list of objects, or {NAME}.jsonl, an object a line"
FIX = "put it there, or name the file or its folder: --alpaca_dataset.data_path=FILE"


@dataclass
class alpaca_dataset(_upstreams):
    """Alpaca: records of instruction, input and output; the first 5% is for validation."""

    dataset: Annotated[str, TEXT, Resume.FREE] = _upstreams.dataset
    train_split: Annotated[str, TEXT, Resume.DATA] = _upstreams.train_split
    test_split: Annotated[str, TEXT, Resume.DATA] = _upstreams.test_split

    data_path: Annotated[str, FOLDER, Resume.DATA] = "datasets/alpaca_data.json"
    """The file, a JSON list or an object a line, or the folder that holds it."""

    data_root: Annotated[str, FOLDER, Resume.FREE] = ""


@dataclass(frozen=True)
class AlpacaFormatter:
    """Puts a record into upstream's templates.

    Attributes:
        with_input: the template of a record that has an input.
        without_input: that of one that has none.
    """

    with_input: str
    without_input: str

    def __call__(
        self, record: Record, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> Continuation | None:
        """Return the record's example, or None if it has no instruction or no output."""
        values = record[1]
        instruction, output = text_of(record, "instruction"), text_of(record, "output")
        if is_blank(instruction) or is_blank(output):
            return None
        given = text_of(record, "input") if "input" in values else ""
        template = self.with_input if given else self.without_input
        prompt = template.format(instruction=instruction, input=given)
        return Continuation(prompt, output, unused_columns(values, COLUMNS))

    def prompt_template(self, tokenizer: PreTrainedTokenizerBase) -> PromptTemplate:
        """Return the prompt template without an input."""
        return PromptTemplate(PROMPT, self.without_input.format(instruction=PLACE))


def split(config: alpaca_dataset, name: str) -> Split:
    """Return the split "train", all but the first 5% of the records, or for another name those 5%.

    Raises:
        UsageError: if the file is not there, or there twice, or cannot be read.
    """
    path = find(config)
    templates = load("datasets.alpaca_dataset").PROMPT_DICT
    formatter = AlpacaFormatter(templates["prompt_input"], templates["prompt_no_input"])
    train = name == "train"
    part = "all but the first 5%" if train else "the first 5%"
    note = f"--> alpaca_dataset: {name} is {part} of {path}"
    share = 0.95 if train else 0.05
    return Split((path,), part, partial(_part, path, train), formatter, (note,), share)


def find(config: alpaca_dataset) -> Path:
    """Return the file that the configuration names, or the one in the folder that it names.

    Raises:
        UsageError: if there is none, or more than one.
    """
    path = data_root.resolve(config.data_path, config.data_root)
    if not path.exists():
        raise UsageError([missing_path(path, FIX)])
    if path.is_file():
        return path
    files = data_files_in(path)
    named = [file for file in files if file.name.startswith(f"{NAME}.")] or files
    if not named:
        why = f"{what_is_there([path])}; {ACCEPTED}"
        raise refusal(f"no Alpaca data in {path}", why, FIX)
    if len(named) > 1:
        why = f"which one to read is ambiguous: {join_names(file.name for file in named)}"
        raise refusal(f"{path} holds several data files", why, FIX)
    return named[0]


def held_out(count: int) -> int:
    """Return how many of ``count`` records are for validation: the first ones.

    They are 5%, at least one. Upstream holds out none if there are fewer than 20, and then fails.
    """
    return max(count // 20, 1)


def _part(path: Path, train: bool) -> Iterator[Record]:
    status = path.stat()
    first = held_out(_count(path, status.st_mtime_ns, status.st_size))
    return islice(records(path), first, None) if train else islice(records(path), first)


@lru_cache(maxsize=1)
def _count(path: Path, modified: int, size: int) -> int:
    """Return how many records a file has; cached, because both splits ask."""
    return sum(1 for _ in records(path))


DATASET = Dataset(
    config=alpaca_dataset,
    split=split,
    flag="--alpaca_dataset.data_path=FILE",
)
