"""Joins documents to a row, and finds them in a row by their positions, which restart."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from llama_recipes_local.data.token_rows import IGNORE_INDEX

Document = tuple[NDArray[np.int32], NDArray[np.int32]]
"""Ids and labels, as many of each."""

Row = dict[str, NDArray[np.int32]]


def side_by_side(documents: Sequence[Document]) -> Row:
    """Join documents to a row, keeping them apart.

    Positions restart with each document, and its first token is not a label, because nothing
    before it in the row may predict it.

    Args:
        documents: none of them empty.

    Returns:
        ``input_ids``, ``labels`` and ``position_ids``, each (tokens,) int32, copies.
    """
    lengths = [len(ids) for ids, _ in documents]
    starts = np.cumsum([0, *lengths[:-1]], dtype=np.int32)
    labels = np.concatenate([labels for _, labels in documents])
    labels[starts] = IGNORE_INDEX
    return {
        "input_ids": np.concatenate([ids for ids, _ in documents]),
        "labels": labels,
        "position_ids": np.arange(sum(lengths), dtype=np.int32) - np.repeat(starts, lengths),
    }


def without_labels(row: Row) -> Row:
    """Return the first token of a row, which is no label: a row without loss, at almost no cost."""
    return {key: values[:1] for key, values in row.items()}


def document_bounds(position_ids: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Find the documents of a batch from its positions.

    Args:
        position_ids: (batch, seq); a document begins where the position is 0, and in column 0.

    Returns:
        The cumulative lengths over the batch's rows one after another, (documents + 1,) int32, and
        the length of the longest document. On CUDA this waits for the device.
    """
    begins = position_ids == 0
    begins[:, 0] = True
    starts = begins.flatten().nonzero().flatten()
    end = starts.new_tensor([position_ids.numel()])
    bounds = torch.cat([starts, end])
    return bounds.to(torch.int32), int(bounds.diff().max())
