"""Tokenised rows in Arrow, mapped from disk or held in memory, as packing and batches read them."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
from torch.utils.data import Dataset

IGNORE_INDEX = -100
"""The label of a token that is not trained; torch's cross-entropy ignores it."""
ROWS_PER_BATCH = 4096

Int32 = npt.NDArray[np.int32]
Tokens = Sequence[int] | Int32
Sample = Mapping[str, Tokens]

SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("digest", pa.uint64()),
    ]
)


@dataclass(frozen=True)
class Chunk:
    """Some rows, with their tokens in one array.

    Attributes:
        lengths: (rows,) tokens in each row.
        ids: (tokens,) int32.
        labels: (tokens,) int32, ``IGNORE_INDEX`` where a token is not trained.
    """

    lengths: Int32
    ids: Int32
    labels: Int32

    @classmethod
    def of(cls, ids: Sequence[Tokens], labels: Sequence[Tokens]) -> "Chunk":
        """Join rows to a chunk."""
        lengths = np.fromiter(map(len, ids), np.int32, len(ids))
        return cls(lengths, _flat(ids, int(lengths.sum())), _flat(labels, int(lengths.sum())))

    def batch(self) -> pa.RecordBatch:
        """Return the rows as Arrow, without a copy of their tokens."""
        offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32)
        columns = [pa.ListArray.from_arrays(offsets, values) for values in (self.ids, self.labels)]
        digests = pa.array(_digests(offsets, self.ids))
        return pa.RecordBatch.from_arrays([*columns, digests], schema=SCHEMA)


def _digests(offsets: Int32, ids: Int32) -> npt.NDArray[np.uint64]:
    """Hash each row's ids and their order, to find equal rows: splitmix64 of each, summed."""
    places = np.arange(len(ids)) - np.repeat(offsets[:-1], np.diff(offsets))
    mixed = ids.astype(np.uint64) + (places.astype(np.uint64) << np.uint64(32))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed ^ (mixed >> np.uint64(31)))])
    return sums[offsets[1:]] - sums[offsets[:-1]]


def _flat(rows: Sequence[Tokens], total: int) -> Int32:
    flat = np.empty(total, np.int32)
    end = 0
    for row in rows:
        flat[end : end + len(row)] = row
        end += len(row)
    return flat


class TokenRows(Dataset[dict[str, list[int]]]):
    """Rows of token ids and labels with random access, not copied into memory.

    Each item holds ``input_ids``, ``labels`` and ``attention_mask``, lists of the same length.

    Attributes:
        lengths: (rows,) tokens in each row.
        groups: (rows,) the group of each row: only rows of one group may share a batch or a packed
            row. None allows all.
    """

    groups: Int32 | None = None

    def __init__(self, batches: Sequence[pa.RecordBatch], path: Path | None = None) -> None:
        self._path = path
        self._batches = batches
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
        self._columns = [_views(batch) for batch in batches]
        lengths = [np.diff(offsets) for offsets, _, _ in self._columns]
        self.lengths: Int32 = np.concatenate([np.zeros(0, np.int32), *lengths])

    @classmethod
    def open(cls, path: Path) -> "TokenRows":
        """Map the rows of an Arrow file.

        Raises:
            pyarrow.ArrowException: if it is not such a file.
        """
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        return cls([reader.get_batch(index) for index in range(reader.num_record_batches)], path)

    @classmethod
    def from_samples(cls, samples: Iterable[Sample]) -> "TokenRows":
        """Hold samples, each with ``input_ids`` and ``labels``, in memory as Arrow."""
        return cls([chunk.batch() for chunk in _chunks(samples)])

    def save(self, path: Path) -> None:
        """Write the rows as an Arrow file, which ``open`` maps."""
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
            for batch in self._batches:
                writer.write_batch(batch)

    @classmethod
    def joined(cls, parts: Iterable["TokenRows"]) -> "TokenRows":
        """Return the rows of several, without a copy of their tokens."""
        return TokenRows([batch for rows in parts for batch in rows._batches])

    def __reduce__(self) -> tuple[Any, ...]:
        # a process that is not forked maps the file again instead of being sent its rows
        if self._path is not None:
            return TokenRows.open, (self._path,)
        return TokenRows, (self._batches,)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, idx: int) -> dict[str, list[int]]:
        ids, labels = self.arrays(idx)
        return {
            "input_ids": ids.tolist(),
            "labels": labels.tolist(),
            "attention_mask": [1] * len(ids),
        }

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        return map(self.__getitem__, range(len(self)))

    def arrays(self, idx: int) -> tuple[Int32, Int32]:
        """Return a row's ids and labels, (tokens,) each, as read-only views.

        Raises:
            IndexError: if there is no such row.
        """
        row = range(len(self))[idx]
        batch = int(np.searchsorted(self._starts, row, side="right")) - 1
        offsets, ids, labels = self._columns[batch]
        start, end = offsets[row - self._starts[batch] :][:2]
        return ids[start:end], labels[start:end]

    @property
    def digests(self) -> npt.NDArray[np.uint64]:
        """A hash of each row's ids, (rows,); equal rows have equal hashes."""
        columns = [_view(batch.column("digest")) for batch in self._batches]
        return np.concatenate([np.zeros(0, np.uint64), *columns])

    def tokens(self, size: int) -> set[int]:
        """Return the ids below ``size`` that occur in the rows."""
        there = np.zeros(size, bool)
        for _, ids, _ in self._columns:
            there[ids[ids < size]] = True
        return set(np.flatnonzero(there).tolist())

    @property
    def content_hash(self) -> str:
        """A hash of all ids and labels."""
        digest = hashlib.sha256(self.lengths.tobytes())
        for offsets, ids, labels in self._columns:
            for each in (ids, labels):
                digest.update(each[offsets[0] : offsets[-1]].tobytes())
        return digest.hexdigest()

    @property
    def label_counts(self) -> Int32:
        """The number of predicted labels in each row, (rows,); a first token is never predicted."""
        counts = [_label_counts(offsets, labels) for offsets, _, labels in self._columns]
        return np.concatenate([np.zeros(0, np.int32), *counts])

    @property
    def last_labels(self) -> Int32:
        """The last label of each row, (rows,); ``IGNORE_INDEX`` where a row has none."""
        found = [_last_labels(offsets, labels) for offsets, _, labels in self._columns]
        return np.concatenate([np.zeros(0, np.int32), *found])

    @property
    def beginnings(self) -> tuple[Int32, Int32]:
        """The first and the second token of each row, (rows,); -1 where there is none."""
        found = [
            [_token_at(offsets, ids, place) for offsets, ids, _ in self._columns]
            for place in range(2)
        ]
        first, second = (np.concatenate([np.zeros(0, np.int32), *each]) for each in found)
        return first, second


def _last_labels(offsets: Int32, labels: Int32) -> Int32:
    places = np.where(labels != IGNORE_INDEX, np.arange(len(labels)), -1)
    last = np.concatenate([[-1], np.maximum.accumulate(places)])[offsets[1:]]
    padded = np.concatenate([labels, [IGNORE_INDEX]])  # -1 is the last
    return np.where(last >= offsets[:-1], padded[last], IGNORE_INDEX).astype(np.int32)


def _token_at(offsets: Int32, ids: Int32, place: int) -> Int32:
    padded = np.concatenate([ids, [-1]])
    at = np.minimum(offsets[:-1] + place, len(ids))
    return np.where(at < offsets[1:], padded[at], -1).astype(np.int32)


def _views(batch: pa.RecordBatch) -> tuple[Int32, Int32, Int32]:
    ids, labels = batch.column("input_ids"), batch.column("labels")
    return _view(ids.offsets), _view(ids.values), _view(labels.values)


def _view(array: pa.Array) -> Any:
    """Return a view of an array of numbers; its own ``to_numpy`` imports pandas.

    Raises:
        ValueError: if it has nulls.
    """
    if array.null_count:
        raise ValueError("a column of tokens has nulls")
    dtype = np.dtype(str(array.type))
    if not len(array):
        return np.zeros(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)


def _label_counts(offsets: Int32, labels: Int32) -> Int32:
    before = np.concatenate([[0], np.cumsum(labels != IGNORE_INDEX)])
    first = np.minimum(offsets[:-1] + 1, offsets[1:])  # an empty row has no first token
    return (before[offsets[1:]] - before[first]).astype(np.int32)


def _chunks(samples: Iterable[Sample]) -> Iterator[Chunk]:
    ids: list[Tokens] = []
    labels: list[Tokens] = []
    for sample in samples:
        ids.append(sample["input_ids"])
        labels.append(sample["labels"])
        if len(ids) == ROWS_PER_BATCH:
            yield Chunk.of(ids, labels)
            ids, labels = [], []
    if ids:
        yield Chunk.of(ids, labels)
