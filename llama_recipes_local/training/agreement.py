"""What all ranks settle at the boundary between two optimiser steps.

The exchange goes over host memory, before anything of the step is sent to the device, so the
device is never waited for. What one rank knows and all must act on together is decided here.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from llama_recipes_local.parallel import all_reduce_sum
from llama_recipes_local.training import batches


@dataclass(frozen=True)
class StepPlan:
    """A step as all ranks see it.

    Attributes:
        label_tokens: label tokens of the global batch.
        tokens: positions that all ranks compute.
        real_tokens: those that are not padding.
        squared_lengths: sum of the squares of the documents' lengths.
        report: whether the numbers of the steps so far are fetched after this step.
    """

    label_tokens: int
    tokens: int
    real_tokens: int
    squared_lengths: int
    report: bool


def agree(micro_batches: Iterable[batches.Batch], report: bool) -> StepPlan:
    """Add up what the ranks hold and want; all ranks call this together.

    Args:
        micro_batches: this rank's, in host memory.
        report: whether this rank wants the numbers fetched; one is enough.
    """
    counts = torch.zeros(5, dtype=torch.int64)
    for batch in micro_batches:
        lengths = batches.document_lengths(batch)
        counts[0] += batches.label_tokens(batch)
        counts[1] += batches.tokens(batch)
        counts[2] += lengths.sum()
        counts[3] += lengths.square().sum()
    counts[4] = report
    label_tokens, tokens, real_tokens, squared_lengths, wanted = all_reduce_sum(counts).tolist()
    return StepPlan(label_tokens, tokens, real_tokens, squared_lengths, report=wanted > 0)
