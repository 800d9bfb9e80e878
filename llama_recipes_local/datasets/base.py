"""What all data sets share: splits, formatters, and the declaration that the registry lists."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.datasets.examples import Example, Pair
from llama_recipes_local.datasets.prompt_template import PROMPT, PromptTemplate
from llama_recipes_local.errors import refusal
from llama_recipes_local.records.checked_values import Record, column_of


class DatasetConfig(Protocol):
    """What every data set's configuration has.

    Attributes:
        dataset: the data set's name.
        train_split: the data set's name for what is trained on, or its file.
        test_split: the same for validation.
        data_root: the folder that relative paths start from; see ``storage.data_root``.
    """

    dataset: str
    train_split: str
    test_split: str
    data_root: str


class Formatter(Protocol):
    """Turns a record into an example; made of plain data, so that worker processes can take it.

    Its ``repr`` tells all that shapes its output (a frozen dataclass's does): it is part of the
    key that tokens are cached under.
    """

    def __call__(self, record: Record, tokenizer: PreTrainedTokenizerBase) -> Example | None:
        """Return the record's example, or None if the record is blank.

        Raises:
            UsageError: if the record is not of the form it should have; the record's place, which
                is the first of its two parts, is named.
        """

    def prompt_template(self, tokenizer: PreTrainedTokenizerBase) -> PromptTemplate:
        """Return what generation puts a user's text into, so that it reads as in training."""


@dataclass(frozen=True)
class Split:
    """A split of a data set.

    Attributes:
        files: the files it is read from; their contents are part of the cache key.
        part: which records of them it takes, in a word that is part of the cache key too.
        records: reads the records, one at a time and from the first, each time it is called.
        formatter: makes examples of them.
    """

    files: tuple[Path, ...]
    part: str
    records: Callable[[], Iterator[Record]]
    formatter: Formatter


@dataclass(frozen=True)
class PromptFormatter:
    """Makes a pair of each record.

    Attributes:
        template: the prompt, with ``{}`` where the text goes.
        text: the column that goes into the prompt.
        response: the column that is trained.
    """

    template: str
    text: str
    response: str

    def __call__(
        self, record: Record, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> Pair | None:
        """Return the record's pair, or None if either side is blank."""
        text, response = text_of(record, self.text), text_of(record, self.response)
        if is_blank(text) or is_blank(response):
            return None
        return Pair(self.template.format(text), response)

    def prompt_template(self, tokenizer: PreTrainedTokenizerBase) -> PromptTemplate:
        """Return the prompt template."""
        return PromptTemplate(PROMPT, self.template)


def text_of(record: Record, column: str) -> str:
    """Return a record's text in a column; see ``as_text``.

    Raises:
        UsageError: if the record lacks the column, or what is in it is no text.
    """
    where, values = record
    return as_text(column_of(values, column, where), f"{column!r} in {where}")


def as_text(value: object, what: str) -> str:
    """Return a text as it is; nothing (null) is an empty text. ``what`` names it.

    Raises:
        UsageError: if it is no text, or none that UTF-8 can hold.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise refusal(f"{what} is not text", f"it is {value!r:.80}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:  # JSON may escape half of a surrogate pair
            raise refusal(f"{what} is not Unicode text", str(error)) from error
    return value


def is_blank(text: str) -> bool:
    """Tell whether a text has nothing but white space."""
    return not text or text.isspace()
