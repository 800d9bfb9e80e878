"""One split of a data set: found on disk, not read yet."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.datasets.examples import Example
from llama_recipes_local.datasets.prompt_template import Frame
from llama_recipes_local.records.values import Record


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

    def frame(self, tokenizer: PreTrainedTokenizerBase) -> Frame:
        """Return what generation is to put a user's text into, so that it looks as in training."""


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
