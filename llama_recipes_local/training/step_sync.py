"""Step synchronisation: what all ranks exchange between two optimiser steps.

They exchange it through host memory, before anything of the step is sent to the device, so that the
device is never synchronised. Whatever one rank knows and all must act on together is decided here.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from llama_recipes_local.parallel import all_reduce_sum, world_size
from llama_recipes_local.training import batches


@dataclass(frozen=True)
class StepSync:
    """What all ranks know about the next step.

    Attributes:
        label_tokens: label tokens of the global batch.
        tokens: positions that all ranks compute.
        real_tokens: those that are not padding.
        squared_lengths: sum of the squares of the documents' lengths.
        report: whether the numbers of the steps so far are fetched after this step.
        stop: whether a rank received a signal to stop, so that this step is not taken.
        written: whether every rank has its part of a checkpoint on the disk.
        source_tokens: label tokens of each source of a mixture.
    """

    label_tokens: int
    tokens: int
    real_tokens: int
    squared_lengths: int
    report: bool
    stop: bool = False
    written: bool = False
    source_tokens: tuple[int, ...] = ()


def sync_step(
    micro_batches: Iterable[batches.Batch],
    report: bool,
    stop: bool = False,
    written: bool = False,
    sources: int = 0,
) -> StepSync:
    """Exchange counts and requests of all ranks; all ranks call this together.

    Args:
        micro_batches: this rank's, in host memory.
        report: whether this rank requests that numbers are fetched; one is enough.
        stop: whether this rank received a signal to stop; one is enough.
        sources: sources of the mixture that is trained on; 0 if none is.
        written: whether this rank has written its part of a checkpoint; all are needed.
    """
    counts = torch.zeros(7 + sources, dtype=torch.int64)
    for batch in micro_batches:
        lengths = batches.document_lengths(batch)
        counts[0] += batches.label_tokens(batch)
        counts[1] += batches.tokens(batch)
        counts[2] += lengths.sum()
        counts[3] += lengths.square().sum()
        if sources:
            counts[7:] += batches.source_label_tokens(batch, sources)
    counts[4:7] = torch.tensor([report, stop, written])
    label_tokens, tokens, real_tokens, squared_lengths, *rest = all_reduce_sum(counts).tolist()
    reporting, stopping, ready, *source_tokens = rest
    return StepSync(
        label_tokens,
        tokens,
        real_tokens,
        squared_lengths,
        report=reporting > 0,
        stop=stopping > 0,
        written=ready == world_size(),
        source_tokens=tuple(source_tokens),
    )


def any_rank(flag: bool) -> bool:
    """Whether a flag is set on any rank; all ranks call this together."""
    return bool(all_reduce_sum(torch.tensor(int(flag))))
