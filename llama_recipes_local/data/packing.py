"""Assigns documents to rows: best-fit decreasing bin packing.

Documents are placed longest first, each into the fullest row that still holds it. This needs at
most 11/9 of the smallest possible number of rows (Johnson et al., 1974), and in practice wastes
almost no position. Upstream instead joins all documents and cuts the text into rows, which splits
documents and drops the last row. The price is that all lengths must be known in advance, and that
each epoch has the same rows in another order.

Best fit depends only on a row's free positions. So rows with the same number of free positions are
kept in one list, and documents of the same length are placed together: the work grows with the
number of different lengths and of rows, not with the number of documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llama_recipes_local.data.position import seeded_rng


@dataclass(frozen=True)
class Packing:
    """Rows of documents.

    Attributes:
        documents: (documents,) int32, the indices of each row's documents, row after row, ascending
            within a row.
        starts: (rows + 1,) int64, the offset of each row's documents in ``documents``, and the end.
    """

    documents: NDArray[np.int32]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, index: int) -> NDArray[np.int32]:
        """Return the indices of a row's documents."""
        return self.documents[self.starts[index] : self.starts[index + 1]]


def pack(lengths: Sequence[int] | NDArray[np.int32], size: int, *seeds: int) -> Packing:
    """Place documents, longest first, each into the fullest row that still holds it.

    Among documents of one length the seeds decide which comes first. Rows are opened longest
    document first, so the seeds shuffle them too.

    Args:
        lengths: tokens of each document; one without tokens is skipped.
        size: positions of a row.
        seeds: seeds of the order among equal documents, and of the rows.

    Raises:
        ValueError: if a document is longer than a row.
    """
    every = np.asarray(lengths, dtype=np.int64)
    if every.size and every.max() > size:
        raise ValueError(f"a document of {every.max()} tokens does not fit a row of {size}")
    random = seeded_rng(*seeds)
    shuffled = random.permutation(len(every))
    shuffled = shuffled[every[shuffled] > 0]
    longest_first = shuffled[np.argsort(-every[shuffled], kind="stable")]
    counts = np.bincount(every[longest_first])
    distinct = np.flatnonzero(counts)[::-1].tolist()
    rows = _Rows(size, shortest=distinct[-1] if distinct else size)
    for length in distinct:
        rows.place(length, int(counts[length]))
    return _grouped(longest_first, rows, random)


def pack_apart(
    lengths: NDArray[np.int32], groups: NDArray[np.int32], size: int, *seeds: int
) -> tuple[Packing, NDArray[np.int32]]:
    """Pack as ``pack`` does, with documents of a single group in each row.

    Args:
        lengths: tokens of each document.
        groups: the group of each document, from 0.
        size: positions of a row.
        seeds: as of ``pack``.

    Returns:
        The rows, group after group, and each row's group.
    """
    documents, counts, of_row = [np.empty(0, np.int32)], [], [np.empty(0, np.int32)]
    for group in np.unique(groups).tolist():
        members = np.flatnonzero(groups == group).astype(np.int32)
        packing = pack(lengths[members], size, *seeds, group)
        documents.append(members[packing.documents])
        counts += np.diff(packing.starts).tolist()
        of_row.append(np.full(len(packing), group, np.int32))
    starts = np.cumsum([0, *counts], dtype=np.int64)
    return Packing(np.concatenate(documents), starts), np.concatenate(of_row)


def _grouped(documents: NDArray[np.int64], rows: "_Rows", random: np.random.RandomState) -> Packing:
    """Collect each row's documents, in the data's order, and shuffle the rows."""
    if not len(documents):
        return Packing(np.empty(0, np.int32), np.zeros(1, np.int64))
    row_of = np.full(documents.max() + 1, rows.opened)
    row_of[documents] = random.permutation(rows.opened)[np.repeat(rows.chosen, rows.taken)]
    order = np.argsort(row_of, kind="stable")[: len(documents)]
    starts = np.concatenate([[0], np.bincount(row_of[documents]).cumsum()])
    return Packing(order.astype(np.int32), starts.astype(np.int64))


class _Rows:
    """Rows that are being filled, in lists by the number of their free positions."""

    def __init__(self, size: int, shortest: int) -> None:
        self.size = size
        self.shortest = shortest
        self.opened = 0
        self.chosen: list[int] = []
        self.taken: list[int] = []
        """How many documents, longest first, each entry of ``chosen`` received."""
        self._rows: dict[int, list[int]] = {}
        self._levels = _Levels(size)

    def place(self, length: int, count: int) -> None:
        """Place ``count`` documents of one length, none longer than those before."""
        while count and (free := self._levels.at_least(length)) is not None:
            count -= self._fill(free, self._rows[free], length, count)
            if not self._rows[free]:
                self._levels.discard(free)
        if count:
            opened = self.opened + -(-count // (self.size // length))
            self._fill(self.size, [*range(self.opened, opened)], length, count)
            self.opened = opened

    def _fill(self, free: int, rows: list[int], length: int, count: int) -> int:
        """Fill rows with ``free`` positions, removing them from ``rows``; return how many fitted.

        Best fit fills one row before the next: a row that received a document has become the
        fullest that still holds another of this length.
        """
        each = free // length
        placed = min(count, each * len(rows))
        whole, rest = divmod(placed, each)
        used = rows[len(rows) - whole - bool(rest) :]
        del rows[len(rows) - len(used) :]
        self.chosen += used
        self.taken += [each] * whole + [rest] * bool(rest)
        self._put(free - each * length, used[:whole])
        self._put(free - rest * length, used[whole:])
        return placed

    def _put(self, free: int, rows: list[int]) -> None:
        if rows and free >= self.shortest:  # with fewer, a row is full
            self._rows.setdefault(free, []).extend(rows)
            self._levels.add(free)


class _Levels:
    """A set of integers that finds its smallest member from a bound on; a bit set in two layers.

    A bit of ``_filled`` tells whether a word has any bit set, so that a look-up takes two
    operations on integers of ``WIDTH`` bits, however long a row is.
    """

    WIDTH = 512

    def __init__(self, largest: int) -> None:
        self._words = [0] * (largest // self.WIDTH + 1)
        self._filled = 0
        """A bit for each word, set where the word is not 0."""

    def add(self, level: int) -> None:
        word, bit = divmod(level, self.WIDTH)
        self._words[word] |= 1 << bit
        self._filled |= 1 << word

    def discard(self, level: int) -> None:
        word, bit = divmod(level, self.WIDTH)
        self._words[word] &= ~(1 << bit)
        if not self._words[word]:
            self._filled &= ~(1 << word)

    def at_least(self, level: int) -> int | None:
        """Return the smallest member that is no smaller than ``level``, or None."""
        word, bit = divmod(level, self.WIDTH)
        here = self._words[word] >> bit
        if here:
            return level + _lowest_bit(here)
        later = self._filled >> (word + 1)
        if not later:
            return None
        word += 1 + _lowest_bit(later)
        return word * self.WIDTH + _lowest_bit(self._words[word])


def _lowest_bit(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
