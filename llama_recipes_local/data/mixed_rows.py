"""Several sources as one set of rows: an epoch of a mixture, or its validation rows.

The tokens stay where they are; only the order of the rows is held in memory.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from llama_recipes_local.data.token_rows import Int32, TokenRows

Order = npt.NDArray[np.int64]


class MixedRows(TokenRows):
    """Rows of several sources, each as often as an order has it.

    Attributes:
        parts: the sources' rows by name.
        names: the sources' names.
        sources: (rows,) index in ``names`` of each row's source.
    """

    def __init__(self, parts: Mapping[str, TokenRows], order: Order, apart: bool = False) -> None:
        """Order the rows of ``parts``.

        Args:
            parts: the sources' rows by name.
            order: rows by number; the parts are numbered one after another.
            apart: whether rows of different sources share no batch and no packed row.
        """
        self.parts, self._order, self._apart = dict(parts), order, apart
        self._every = TokenRows.joined(self.parts.values())
        self.names = tuple(self.parts)
        counts = [len(rows) for rows in self.parts.values()]
        self.sources: Int32 = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[order]
        self.groups = self.sources if apart else None
        self.lengths = self._every.lengths[order]

    def __reduce__(self) -> tuple[Any, ...]:
        return MixedRows, (self.parts, self._order, self._apart)

    def __getitem__(self, idx: int) -> dict[str, list[int]]:
        row = super().__getitem__(idx)
        return row if self._apart else row | {"sources": self.sources_of(idx).tolist()}

    def sources_of(self, idx: int) -> Int32:
        """Return the source of each token of a row, (tokens,)."""
        return np.full(self.lengths[idx], self.sources[idx], np.int32)

    @property
    def mixes(self) -> bool:
        """Whether a batch, or a packed row, may have rows of several sources."""
        return not self._apart

    def arrays(self, idx: int) -> tuple[Int32, Int32]:
        return self._every.arrays(int(self._order[idx]))

    @property
    def repeated(self) -> int:
        """The number of the sources' rows that equal an earlier row, each row counted once."""
        return len(self._every) - len(np.unique(self._every.digests))

    @property
    def digests(self) -> npt.NDArray[np.uint64]:
        return self._every.digests[self._order]

    def tokens(self, size: int) -> set[int]:
        return self._every.tokens(size)  # each row comes once at least

    @property
    def content_hash(self) -> str:
        raise NotImplementedError("a mixture is known by the hashes of its sources")

    @property
    def label_counts(self) -> Int32:
        return self._every.label_counts[self._order]

    @property
    def last_labels(self) -> Int32:
        return self._every.last_labels[self._order]

    @property
    def beginnings(self) -> tuple[Int32, Int32]:
        first, second = self._every.beginnings
        return first[self._order], second[self._order]


def mixed_sources_of(rows: object) -> tuple[str, ...]:
    """Return the names of a mixture's sources if batches mix them, else none.

    Rows may be packed or not.
    """
    documents = getattr(rows, "documents", rows)
    return documents.names if isinstance(documents, MixedRows) and documents.mixes else ()


def interleaved(parts: Mapping[str, TokenRows]) -> MixedRows:
    """Return each row of the sources once, spread evenly; batches and packed rows have one source.

    So the first batches of a validation contain all sources, and each source's loss is known.
    """
    places = [(np.arange(len(rows)) + 0.5) / max(len(rows), 1) for rows in parts.values()]
    return MixedRows(parts, np.argsort(np.concatenate(places), kind="stable"), apart=True)
