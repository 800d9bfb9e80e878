"""From rows to a batch of tensors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.data.token_rows import IGNORE_INDEX

SOURCES = "sources"
"""The number of each token's source, in rows and batches of a mixture."""

Row = Mapping[str, Sequence[int] | NDArray[np.int32]]


class PackedCollator:
    """Joins packed rows into a single row, without padding.

    A batch holds ``input_ids``, ``labels`` and ``position_ids``, each (1, tokens) int64, and for a
    mixture each token's ``sources``. A rank without rows, because there are fewer last rows than
    ranks, gets a batch of one token without a label.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        rows = rows or [{**_blank(self.pad_token_id), "position_ids": [0]}]
        keys = [key for key in ("input_ids", "labels", "position_ids", SOURCES) if key in rows[0]]
        return {
            key: torch.from_numpy(
                np.concatenate([np.asarray(row[key]) for row in rows], dtype=np.int64)
            ).unsqueeze(0)
            for key in keys
        }


class PaddedCollator:
    """Pads rows on the right to the longest one, with an attention mask.

    A batch holds ``input_ids``, ``labels`` and ``attention_mask``, each (batch, longest) int64, and
    for a mixture each token's ``sources``. Other columns of rows are dropped. A batch without rows
    is one token without a label.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, multiple: int = 1) -> None:
        """Use the padding token of ``tokenizer``; pad to a multiple of ``multiple``.

        Use 8 on CUDA in half precision: tensor cores multiply in tiles of 8, and matrices of other
        sizes take slower kernels. Use 1 elsewhere, because padding costs computation. Padding has
        the label -100, so the loss is the same either way.
        """
        self.pad_token_id: int = tokenizer.pad_token_id  # type: ignore[assignment]
        self.multiple = multiple

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        rows = rows or [_blank(self.pad_token_id)]
        longest = max(len(row["input_ids"]) for row in rows)
        width = -(-longest // self.multiple) * self.multiple
        ids = np.full((len(rows), width), self.pad_token_id, dtype=np.int64)
        labels = np.full((len(rows), width), IGNORE_INDEX, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for index, row in enumerate(rows):
            length = len(row["input_ids"])
            ids[index, :length] = row["input_ids"]
            labels[index, :length] = row["labels"]
            mask[index, :length] = row.get("attention_mask", 1)
        batch = {"input_ids": ids, "labels": labels, "attention_mask": mask}
        if SOURCES in rows[0]:
            batch[SOURCES] = np.zeros((len(rows), width), dtype=np.int64)
            for index, row in enumerate(rows):
                batch[SOURCES][index, : len(row[SOURCES])] = row[SOURCES]
        return {key: torch.from_numpy(values) for key, values in batch.items()}


def _blank(pad_token_id: int) -> dict[str, Sequence[int]]:
    return {"input_ids": [pad_token_id], "labels": [IGNORE_INDEX]}


@dataclass(frozen=True)
class Blank:
    """Stands in for the rows of a rank that has none left; ``row`` shows their form."""

    row: Any


class MapDataset(Protocol):
    """What a map-style data set has at least."""

    def __len__(self) -> int: ...

    def __getitem__(self, idx: int, /) -> Any: ...


class BlankRows(Dataset[Any]):
    """A user's map-style data set, which returns ``Blank(first row)`` when asked for no rows."""

    def __init__(self, dataset: MapDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> Any:
        return self.dataset[idx]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.dataset)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        if not indices:
            return [Blank(self.dataset[0])]
        many = getattr(self.dataset, "__getitems__", None)
        return many(indices) if many else [self.dataset[index] for index in indices]


class BlankCollator:
    """A collator that is never called without rows, because all ranks must take the same steps.

    A rank that has no row left collates the data set's first row, and its labels are ignored. Rows
    that are arrays are passed on as lists, which is what collators are written for.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, rows: Sequence[Any]) -> Any:
        blank = len(rows) == 1 and isinstance(rows[0], Blank)
        batch = self.collate([_as_lists(row.row if blank else row) for row in rows])
        if blank:
            batch["labels"] = torch.full_like(batch["labels"], IGNORE_INDEX)
        return batch


def _as_lists(row: object) -> object:
    if isinstance(row, dict) and any(isinstance(value, np.ndarray) for value in row.values()):
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in row.items()}
    return row
