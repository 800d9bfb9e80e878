"""Estimates the tokens of a run's data from some of its records, tokenised as the run does it.

``plan`` calls it, which tokenises no whole data set.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.configs.protocols import Part
from llama_recipes_local.data.mixing import times_needed
from llama_recipes_local.datasets.base import find_split
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.datasets.tokenized_splits import audit_records
from llama_recipes_local.errors import UsageError
from llama_recipes_local.records.checked_values import Record
from llama_recipes_local.run import Run, Source

MOST_RECORDS = 1024
MOST_CHARACTERS = 1 << 20
"""What is tokenised of a part at most."""
MOST_BYTES = 200 << 20
"""Of a part's files: to read more takes longer than some seconds."""
_GOLDEN, _RANGE = 0x9E3779B1, 1 << 32


@dataclass(frozen=True)
class Estimate:
    """About how much data there is.

    Attributes:
        rows: that are trained or validated on.
        tokens: of them.
        label_tokens: those that are predicted.
        records: that were tokenised for it.
        exact: whether they are all.
    """

    rows: int
    tokens: int
    label_tokens: int
    records: int
    exact: bool

    def times(self, often: float) -> "Estimate":
        """Return the same data, several times or in part."""
        return replace(
            self,
            rows=round(often * self.rows),
            tokens=round(often * self.tokens),
            label_tokens=round(often * self.label_tokens),
        )


def estimate(run: Run, part: Part, tokenizer: PreTrainedTokenizerBase) -> Estimate | None:
    """Return the size of an epoch of a part; None if it cannot be known from a few records.

    Raises:
        UsageError: if a record that is looked at cannot be used.
    """
    each = [_source(source, part, tokenizer, run.train.context_length) for source in run.sources]
    found = [size for size in each if size is not None and size.label_tokens]
    if not found or len(found) < len(each):
        return None
    labels, weights = [size.label_tokens for size in found], [s.weight for s in run.sources]
    often = times_needed(labels, weights) if part == "train" else [1.0] * len(found)
    sizes = [size.times(times) for size, times in zip(found, often, strict=True)]
    return Estimate(
        sum(size.rows for size in sizes),
        sum(size.tokens for size in sizes),
        sum(size.label_tokens for size in sizes),
        sum(size.records for size in sizes),
        all(size.exact for size in sizes),
    )


def _source(
    source: Source, part: Part, tokenizer: PreTrainedTokenizerBase, limit: int
) -> Estimate | None:
    """Return the size of a source's part; None for one that other code reads, or a large one."""
    try:
        split = find_split(DATASETS[source.dataset], source.config, part, tokenizer)
        if split is None or _bytes(split.files) > MOST_BYTES:
            return None
    except (UsageError, OSError):
        return None
    kept, count, characters = spread(split.records())
    size = sum(map(_size, kept))
    if size > MOST_CHARACTERS:
        return None  # one that is too long to be tokenised here
    found = audit_records(split, tokenizer, limit, kept)
    records = count / max(len(kept), 1)
    # truncated rows do not grow with their texts
    texts = records if found.counts.truncated else characters / max(size, 1)
    return Estimate(
        round((texts if found.counts.divided else records) * found.rows),
        round(texts * found.tokens),
        round(texts * found.label_tokens),
        len(kept),
        len(kept) == count,
    )


def _bytes(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def spread(records: Iterable[Record]) -> tuple[list[Record], int, int]:
    """Return some records from all over a part, how many it has, and the characters of all.

    Multiples of the golden ratio choose them: evenly, and not in step with any order of the file.
    """
    kept: list[tuple[int, int, Record]] = []
    below, size, count, characters = _RANGE, 0, 0, 0
    for count, record in enumerate(records, start=1):
        length, place = _size(record), count * _GOLDEN % _RANGE
        characters += length
        if place >= below:
            continue
        kept.append((place, length, record))
        size += length
        while len(kept) > 1 and (len(kept) > MOST_RECORDS or size > MOST_CHARACTERS):
            below //= 2
            kept = [each for each in kept if each[0] < below]
            size = sum(each[1] for each in kept)
    return [record for _, _, record in kept], count, characters


def _size(record: Record) -> int:
    return len(str(record[1]))
