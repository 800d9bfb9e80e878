"""Packing: whole documents side by side in rows of ``context_length`` tokens."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence

from torch.utils.data import Dataset

IGNORE_INDEX = -100

Sample = Mapping[str, Sequence[int]]


class ConcatDataset(Dataset[dict[str, list[int]]]):
    """Documents packed into rows, every token kept and no document seen by another.

    Documents go, longest first, each into the fullest row that still holds it (best fit), so the
    packing follows from the data alone. Positions restart with each document, and its first token
    is no label, for nothing before it in the row may predict it. A document longer than a row is
    cut into rows.

    Each item holds ``input_ids``, ``labels`` and ``position_ids``, lists of one length of at most
    ``chunk_size``.
    """

    def __init__(self, dataset: Iterable[Sample], chunk_size: int = 4096) -> None:
        """Pack ``dataset``, whose samples have ``input_ids`` and ``labels``.

        Raises:
            ValueError: if there is not one token to pack.
        """
        self.chunk_size = chunk_size
        self._pieces = [piece for sample in dataset for piece in _cut(sample, chunk_size)]
        if not self._pieces:
            raise ValueError("the data set has no tokens to pack")
        self.rows = _best_fit([len(ids) for ids, _ in self._pieces], chunk_size)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, idx: int) -> dict[str, list[int]]:
        row: dict[str, list[int]] = {"input_ids": [], "labels": [], "position_ids": []}
        for piece in self.rows[idx]:
            ids, labels = self._pieces[piece]
            row["input_ids"] += ids
            row["labels"] += [IGNORE_INDEX, *labels[1:]]
            row["position_ids"] += range(len(ids))
        return row

    @property
    def used(self) -> float:
        """The share of the rows' positions that hold a token."""
        tokens = sum(len(ids) for ids, _ in self._pieces)
        return tokens / (len(self.rows) * self.chunk_size)


def _cut(sample: Sample, size: int) -> Iterable[tuple[Sequence[int], Sequence[int]]]:
    ids, labels = sample["input_ids"], sample["labels"]
    for start in range(0, len(ids), size):
        yield ids[start : start + size], labels[start : start + size]


def _best_fit(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Assign pieces to rows; a row lists the indices of its pieces, in the data's order."""
    rows: list[list[int]] = []
    space: list[tuple[int, int]] = []  # (free positions, row), sorted
    for piece in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        fit = bisect_left(space, (lengths[piece], -1))
        if fit == len(space):
            rows.append([])
            free, row = size, len(rows) - 1
        else:
            free, row = space.pop(fit)
        rows[row].append(piece)
        if free > lengths[piece]:
            insort(space, (free - lengths[piece], row))
    return [sorted(row) for row in rows]
