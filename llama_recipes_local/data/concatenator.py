"""Packing: whole documents side by side in rows of ``context_length`` tokens."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from llama_recipes_local.data.documents import Row, side_by_side, without_labels
from llama_recipes_local.data.mixed_rows import MixedRows
from llama_recipes_local.data.packing import pack, pack_apart
from llama_recipes_local.data.streaming import PackedStream, as_stream, is_stream
from llama_recipes_local.data.token_rows import IGNORE_INDEX, TokenRows
from llama_recipes_local.data.truncation import truncate
from llama_recipes_local.run import active_run

__all__ = ["IGNORE_INDEX", "ConcatDataset"]

DEFAULT_SEED = 42  # upstream's train_config.seed


class ConcatDataset(Dataset[dict[str, list[int]]]):
    """Documents packed into rows: every token is kept, and no document sees another.

    Documents are placed longest first, each into the fullest row that still holds it (best fit), so
    the packing depends only on the data and the seed. Only the assignment of documents to rows is
    held in memory, not their tokens. Positions restart with each document, and its first token is
    not a label. A document longer than a row is truncated, see ``truncation.truncate``.

    Each item holds ``input_ids``, ``labels`` and ``position_ids``, lists of the same length, at
    most ``chunk_size``. For a stream, this makes a ``PackedStream``.
    """

    def __new__(
        cls, dataset: Iterable[Any] = (), chunk_size: int = 4096, seed: int | None = None
    ) -> Any:
        if is_stream(dataset):
            return PackedStream(as_stream(dataset), chunk_size, _seed(seed))
        return super().__new__(cls)

    def __init__(
        self, dataset: Iterable[Any], chunk_size: int = 4096, seed: int | None = None
    ) -> None:
        """Pack ``dataset``, ``TokenRows`` or samples that have ``input_ids`` and ``labels``.

        Args:
            dataset: the documents; samples are gathered in ``TokenRows``.
            chunk_size: tokens of a row, 2 or more.
            seed: decides between equal fits; None means the run's, 42 outside one.

        Raises:
            ValueError: if there is not one token to pack, or rows are too short to predict one.
        """
        self.chunk_size = chunk_size
        self.documents = _truncated(dataset, chunk_size)
        lengths, groups = self.documents.lengths, self.documents.groups
        self.groups: NDArray[np.int32] | None = None
        """(rows,) which rows may share a batch, as of ``TokenRows``."""
        if groups is None:
            self.packing = pack(lengths, chunk_size, _seed(seed))
        else:
            self.packing, self.groups = pack_apart(lengths, groups, chunk_size, _seed(seed))
        if not len(self.packing):
            raise ValueError("the data set has no tokens to pack")

    def __len__(self) -> int:
        return len(self.packing)

    @property
    def names(self) -> Sequence[str]:
        """The names of the documents' groups, if they have groups."""
        return getattr(self.documents, "names", ())

    def __getitem__(self, idx: int) -> dict[str, list[int]]:
        return {key: values.tolist() for key, values in self.row(idx).items()}

    def __getitems__(self, indices: Sequence[int]) -> list[Row]:
        """Return rows as arrays, which a collator joins quickly; ``DataLoader`` calls this.

        A rank that has no row left asks for none, and gets one that has no label.
        """
        if not indices:
            return [without_labels(self.row(0))]
        return [self.row(index) for index in indices]

    def row(self, idx: int) -> Row:
        """Return an item as int32 arrays."""
        if not -len(self) <= idx < len(self):
            raise IndexError(f"row {idx} of {len(self)}")
        places = self.documents_of(idx).tolist()
        row = side_by_side([self.documents.arrays(place) for place in places])
        if isinstance(self.documents, MixedRows) and self.documents.mixes:
            row["sources"] = np.concatenate([self.documents.sources_of(each) for each in places])
        return row

    def documents_of(self, idx: int) -> NDArray[np.int32]:
        """Return the indices of a row's documents in ``documents``."""
        return self.packing.row(idx % len(self))

    @property
    def row_lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, (rows,)."""
        tokens = self.documents.lengths[self.packing.documents]
        return np.add.reduceat(tokens.astype(np.int64), self.packing.starts[:-1])

    @property
    def used(self) -> float:
        """The share of the rows' positions that hold a token."""
        return int(self.documents.lengths.sum(dtype=np.int64)) / (len(self) * self.chunk_size)


def _seed(given: int | None) -> int:
    active = active_run()
    if given is not None:
        return given
    return active.train.seed if active is not None else DEFAULT_SEED


def _truncated(dataset: Iterable[Any], limit: int) -> TokenRows:
    """Return ``dataset`` if it is ``TokenRows`` that fit, or gather its truncated samples."""
    if isinstance(dataset, TokenRows) and not (dataset.lengths > limit).any():
        return dataset
    too_long = 0

    def truncated() -> Iterator[dict[str, Any]]:
        nonlocal too_long
        for sample in dataset:
            too_long += len(sample["input_ids"]) > limit
            for ids, labels in truncate(sample["input_ids"], sample["labels"], limit):
                yield {"input_ids": ids, "labels": labels}

    gathered = TokenRows.from_samples(truncated())
    if too_long:
        print(
            f"--> truncating {too_long} documents longer than {limit} tokens: prompt middle, then "
            "response end; plain text is split"
        )
    return gathered
