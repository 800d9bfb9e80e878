"""What all data sets share: splits, formatters, and the declaration for the registry."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from llama_recipes_local.configs.protocols import DatasetConfig, Part
from llama_recipes_local.datasets.examples import Example, Pair
from llama_recipes_local.datasets.prompt_template import PROMPT, PromptTemplate
from llama_recipes_local.errors import refusal
from llama_recipes_local.records.checked_values import Record, column_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PARTS: tuple[Part, Part] = ("train", "test")


class Formatter(Protocol):
    """Turns a record into an example; it is plain data, so that it can be sent to worker processes.

    Its ``repr`` has all that its output depends on (a frozen dataclass's does): it is part of the
    key that tokens are cached under.
    """

    def __call__(
        self, record: Record, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> Example | None:
        """Return the record's example, or None if the record is blank.

        The tokenizer is needed where ``Dataset.needs_tokenizer`` says so.

        Raises:
            UsageError: if the record is not of the form it should have; the record's place, which
                is the first of its two parts, is named.
        """

    def prompt_template(self, tokenizer: PreTrainedTokenizerBase) -> PromptTemplate:
        """Return the template for a user's text in generation, so that it reads as in training."""


@dataclass(frozen=True)
class Split:
    """A split of a data set.

    Attributes:
        files: the files it is read from; their contents are part of the cache key.
        part: which records of them it has, in words that are part of the cache key too.
        records: reads the records, one at a time and from the first, each time it is called.
        formatter: makes examples of them.
        notes: lines that tell the user how it is read.
        share: about what part of the files' records it has; None if that is not known.
    """

    files: tuple[Path, ...]
    part: str
    records: Callable[[], Iterator[Record]]
    formatter: Formatter
    notes: tuple[str, ...] = ()
    share: float | None = 1.0


Config = TypeVar("Config", bound=DatasetConfig)

_most_records: ContextVar[int | None] = ContextVar("most records of a split", default=None)


@contextmanager
def first_records(most: int | None) -> Iterator[None]:
    """Limit each split in the block to its first records; None reads all.

    A rehearsal uses this for all the commands that it calls.
    """
    token = _most_records.set(most)
    try:
        yield
    finally:
        _most_records.reset(token)


def _bounded(split: Split) -> Split:
    """Return a split limited to the records that are read, see ``first_records``."""
    most, records = _most_records.get(), split.records
    if most is None:
        return split
    part = f"{split.part}, the first {most} of them"
    return replace(split, part=part, records=lambda: islice(records(), most))


@dataclass(frozen=True, kw_only=True)
class Dataset(Generic[Config]):
    """A data set, as its module declares it for the registry.

    It has ``split``; or ``load`` and ``check``, if other code makes its tokens.

    Attributes:
        config: its configuration; the name of the class is the data set's.
        split: finds a split by the configuration's name for it.
        load: returns a split's tokenised samples, with ``input_ids`` and ``labels``.
        check: raises ``UsageError`` if a split cannot be used; None formats a record of it.
        collator: returns what makes batches of the samples, or None for the usual collators.
        flag: how other files are named, for problems whose fix does not say it; ``{part}`` stands
            for "train" or "test".
        needs_tokenizer: whether formatting a record needs the tokenizer.
        prompt: what ``generate --dataset`` uses, with ``{}`` for the text; empty if it has none.
        for_tokenizer: returns a split with the choices that depend on the model's tokenizer; None
            if there are none.
        example: a text to try the trained model with; "" takes one of the data.
        metrics: metrics that ``evaluate`` computes besides the loss.
    """

    config: type[Config]
    split: Callable[[Config, str], Split] | None = None
    load: Callable[[Config, PreTrainedTokenizerBase, str], Any] | None = None
    check: Callable[[Config, str], None] | None = None
    collator: Callable[[Config, PreTrainedTokenizerBase], Callable[..., Any] | None] | None = None
    flag: str = ""
    needs_tokenizer: bool = False
    for_tokenizer: Callable[[Split, PreTrainedTokenizerBase], Split] | None = None
    prompt: str = ""
    example: str = ""
    metrics: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name that ``--dataset`` takes."""
        return self.config.__name__

    def find(
        self, config: Config, name: str, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> Split | None:
        """Return a split by name, with the choices that depend on a tokenizer."""
        split = self.split(config, name) if self.split else None
        if split is not None and tokenizer is not None and self.for_tokenizer is not None:
            split = self.for_tokenizer(split, tokenizer)
        return _bounded(split) if split is not None else None


def find_split(
    dataset: Dataset[Config],
    config: Config,
    part: Part,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Split | None:
    """Return a part of a data set; None if other code makes its tokens.

    Raises:
        UsageError: if its files are missing.
    """
    return dataset.find(config, split_name(config, part), tokenizer)


def split_name(config: DatasetConfig, part: Part) -> str:
    """Return the configuration's name for a part: its ``train_split`` or its ``test_split``."""
    return config.train_split if part == "train" else config.test_split


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
        notes = unused_columns(record[1], (self.text, self.response, "id"))
        return Pair(self.template.format(text), response, begins=True, notes=notes)

    def prompt_template(self, tokenizer: PreTrainedTokenizerBase) -> PromptTemplate:
        """Return the prompt template."""
        return PromptTemplate(PROMPT, self.template, begins=True)


def text_of(record: Record, column: str) -> str:
    """Return a record's text in a column; see ``as_text``.

    Raises:
        UsageError: if the column is missing, or its value is not text.
    """
    where, values = record
    return as_text(column_of(values, column, where), f"{column!r} in {where}")


def as_text(value: object, what: str) -> str:
    """Return a text as it is, and null as an empty text; ``what`` names it in messages.

    Raises:
        UsageError: if it is not text, or cannot be encoded as UTF-8.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        number = isinstance(value, (int, float))
        fix = f'write it in quotes, as text: "{value}"' if number else "write it as text"
        raise refusal(f"{what} is not text", f"it is {value!r:.80}", fix)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:  # JSON may escape half of a surrogate pair
            raise refusal(f"{what} is not Unicode text", str(error)) from error
    return value


def unused_columns(values: Mapping[str, Any], used: Collection[str]) -> tuple[str, ...]:
    """Return a note for each column that has a value but is not used in the record's example."""
    return tuple(
        f"column {name!r}"
        for name, value in values.items()
        if name not in used and not is_empty(value)
    )


def is_empty(value: object) -> bool:
    """Return whether a column has no value: null, blank text, or an empty list or object."""
    return value is None or value in ([], {}) or (isinstance(value, str) and is_blank(value))


def is_blank(text: str) -> bool:
    """Return whether a text is empty or white space alone."""
    return not text or text.isspace()
