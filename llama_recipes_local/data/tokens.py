"""Tokenised documents behind one another in memory."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from llama_recipes_local.data.labels import IGNORE_INDEX


class TokenRows(Dataset[dict[str, list[int]]]):
    """Documents, each with ``input_ids``, ``labels`` and ``attention_mask``, lists of one length.

    Attributes:
        lengths: (documents,) int32, tokens of each document.
        label_counts: (documents,) int32, labels of each document.
    """

    def __init__(
        self, ids: NDArray[np.int32], labels: NDArray[np.int32], lengths: NDArray[np.int32]
    ) -> None:
        self._ids = ids
        self._labels = labels
        self._ends = lengths.cumsum(dtype=np.int64)
        self.lengths = lengths
        counted = np.concatenate([[0], (labels != IGNORE_INDEX).cumsum()])
        ends = np.concatenate([[0], self._ends])
        self.label_counts = np.diff(counted[ends]).astype(np.int32)

    @classmethod
    def from_samples(cls, samples: Iterable[Mapping[str, Any]]) -> "TokenRows":
        """Gather samples, which have ``input_ids`` and ``labels``."""
        kept = [(sample["input_ids"], sample["labels"]) for sample in samples]
        lengths = np.array([len(ids) for ids, _ in kept], dtype=np.int32)
        return cls(
            _joined([ids for ids, _ in kept]), _joined([labels for _, labels in kept]), lengths
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, idx: int) -> dict[str, list[int]]:
        ids, labels = self.arrays(idx)
        mask = [1] * len(ids)
        return {"input_ids": ids.tolist(), "labels": labels.tolist(), "attention_mask": mask}

    def arrays(self, idx: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return a document's ids and labels without copying them."""
        if not 0 <= idx < len(self):
            raise IndexError(idx)
        end = self._ends[idx]
        part = slice(end - self.lengths[idx], end)
        return self._ids[part], self._labels[part]


def _joined(lists: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    return np.fromiter(chain.from_iterable(lists), dtype=np.int32)
