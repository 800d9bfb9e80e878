"""Micro-batches on their way to the device, and how many label tokens they hold."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch

from llama_recipes_local.data.concatenator import IGNORE_INDEX
from llama_recipes_local.data.documents import document_bounds

Batch = dict[str, Any]


def prepare(batch: Mapping[str, Any], device: torch.device) -> Batch:
    """Name the documents of a packed batch and send its tensors to the device.

    A batch with positions and without a padding mask is packed. Its documents are found here, on
    the CPU, so that the device is not waited for; the names are transformers' own.
    """
    prepared = dict(batch)
    positions = prepared.get("position_ids")
    if positions is not None and prepared.get("attention_mask") is None:
        bounds, longest = document_bounds(positions)
        prepared.update(cu_seq_lens_q=bounds, cu_seq_lens_k=bounds)
        prepared.update(max_length_q=longest, max_length_k=longest)
        # with a cache, transformers' own kernels overlook that the positions restart
        prepared["use_cache"] = False
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in prepared.items()
    }


def label_tokens(batch: Mapping[str, Any]) -> int:
    """Count the labels that are predicted; the first of each row has nothing before it."""
    return int((batch["labels"][..., 1:] != IGNORE_INDEX).sum())


def tokens(batch: Mapping[str, Any]) -> int:
    """Count the positions that a batch computes."""
    return batch["input_ids"].numel()


def in_steps(batches: Iterable[Batch], accumulation_steps: int) -> Iterator[list[Batch]]:
    """Group micro-batches into optimiser steps; the last step of an epoch may have fewer."""
    remaining = iter(batches)
    while group := list(islice(remaining, accumulation_steps)):
        yield group
