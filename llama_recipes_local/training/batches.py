"""Micro-batches on their way to the device, and counts of their tokens, documents and rows."""

import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader

from llama_recipes_local.data.collation import SOURCES
from llama_recipes_local.data.concatenator import IGNORE_INDEX
from llama_recipes_local.data.documents import document_bounds

Batch = dict[str, Any]


def prepare(batch: Mapping[str, Any], device: torch.device) -> Batch:
    """Add the bounds of a packed batch's documents, and send its tensors to the device.

    The bounds are found here, on the CPU, without synchronising with the device; they have
    transformers' names.
    """
    prepared = {key: value for key, value in batch.items() if key != SOURCES}
    if is_packed(batch):
        bounds, longest = document_bounds(prepared["position_ids"])
        prepared.update(cu_seq_lens_q=bounds, cu_seq_lens_k=bounds)
        prepared.update(max_length_q=longest, max_length_k=longest)
        # with a cache, transformers' own kernels ignore that positions restart
        prepared["use_cache"] = False
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in prepared.items()
    }


def is_packed(batch: Mapping[str, Any]) -> bool:
    """Whether rows hold several documents: a batch with positions and without a padding mask."""
    return batch.get("position_ids") is not None and batch.get("attention_mask") is None


def label_tokens(batch: Mapping[str, Any]) -> int:
    """Count the labels that are predicted; the first of each row is not, as nothing precedes it."""
    return int((batch["labels"][..., 1:] != IGNORE_INDEX).sum())


def sources_of(batch: Mapping[str, Any]) -> torch.Tensor:
    """Return the source of each token, (batch, seq); arbitrary where a batch has no label."""
    return batch.get(SOURCES, torch.zeros_like(batch["labels"]))


def source_label_tokens(batch: Mapping[str, Any], sources: int) -> torch.Tensor:
    """Count the labels that are predicted of each source of a mixture, (sources,) int64."""
    predicted = batch["labels"][..., 1:] != IGNORE_INDEX
    return torch.bincount(sources_of(batch)[..., 1:][predicted], minlength=sources)


def tokens(batch: Mapping[str, Any]) -> int:
    """Count the positions that a batch computes."""
    return batch["input_ids"].numel()


def document_lengths(batch: Mapping[str, Any]) -> torch.Tensor:
    """Return how many tokens each document has, (documents,) int64; padding belongs to none."""
    if is_packed(batch):
        return document_bounds(batch["position_ids"])[0].diff().long()
    mask = batch.get("attention_mask")
    if mask is not None and mask.dim() == 2:
        return mask.sum(1).long()
    rows, width = batch["input_ids"].shape
    return torch.full((rows,), width)


def in_steps(
    batches: Iterable[Batch], accumulation_steps: int
) -> Iterator[tuple[list[Batch], float]]:
    """Group micro-batches into optimiser steps; the last step of an epoch may have fewer.

    Yields:
        The micro-batches of a step, and the seconds spent waiting for them.
    """
    remaining = iter(batches)
    while True:
        began = time.perf_counter()
        group = list(islice(remaining, accumulation_steps))
        if not group:
            return
        yield group, time.perf_counter() - began


def rows_of(dataloader: DataLoader[Any], micro_batch: int) -> list[int] | None:
    """Return the rows of this rank's micro-batch, counted from 0 in the current epoch.

    The batch sampler is iterated again, so it does not matter how far workers have prefetched. None
    if the sampler would not give the same order again.
    """
    sampler: Any = getattr(dataloader, "batch_sampler", None)
    if not hasattr(sampler, "set_epoch"):
        return None
    return next(islice(iter(sampler), micro_batch, None), None)
