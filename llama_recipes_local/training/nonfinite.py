"""The error for a non-finite loss or gradient: on which rank, and in which rows it occurred."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from llama_recipes_local.data.mixed_rows import mixed_sources_of
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.messages import join_names
from llama_recipes_local.parallel import from_all_ranks, rank, world_size
from llama_recipes_local.training.batches import rows_of
from llama_recipes_local.training.progress import FetchedStep

MAX_ROWS_NAMED = 8
TOKENS_SHOWN = 24
CHARACTERS_SHOWN = 100
FIX = (
    "check these rows; if they are fine, try a lower --lr, --warmup_steps, "
    "--gradient_clipping, or bfloat16 or float32 instead of float16"
)


class Tokenizer(Protocol):
    """The methods that are used of transformers' tokenizers."""

    def decode(self, token_ids: Any) -> Any: ...


class NonFiniteError(TrainingError):
    """A loss or a gradient is not finite; it changed no weight."""


@dataclass(frozen=True)
class NonFiniteReport:
    """A step whose loss or gradient is not finite, as one rank knows it.

    Attributes:
        step: the step, from 1.
        bad_ranks: ranks whose loss is not finite; empty if only the gradient is not.
        micro_losses: this rank's losses.
        first_micro_batch: the step's first micro-batch in the epoch, from 0.
        input_ids: of this rank's micro-batches, (rows, seq) each.
    """

    step: int
    bad_ranks: list[int]
    micro_losses: list[float]
    first_micro_batch: int
    input_ids: list[torch.Tensor]


def report_of(fetched: FetchedStep) -> NonFiniteReport:
    """Return the report of a step that was fetched."""
    pending = fetched.pending
    return NonFiniteReport(
        step=pending.step,
        bad_ranks=fetched.bad_ranks,
        micro_losses=pending.figures.micro_losses.tolist(),
        first_micro_batch=pending.first_micro_batch,
        input_ids=list(pending.input_ids),
    )


def raise_non_finite(
    report: NonFiniteReport, dataloader: DataLoader[Any], tokenizer: Tokenizer | None
) -> None:
    """Raise an error that names the suspect rows of all ranks; all ranks call this together.

    Raises:
        NonFiniteError: always.
    """
    own = describe_suspects(report, dataloader, tokenizer)
    lines = [line for each in from_all_ranks(own) for line in each]
    if report.bad_ranks:
        ranks = ", ".join(map(str, report.bad_ranks))
        what = f"the loss is not finite on rank{'s' * (len(report.bad_ranks) > 1)} {ranks}"
    else:
        what = "the gradient is not finite, although every rank's loss is"
    raise NonFiniteError(
        f"training stopped at step {report.step}: {what}\n"
        f"   the weights are those after step {report.step - 1}; nothing was saved after it\n"
        + "\n".join(f"   {line}" for line in lines)
        + f"\n   fix: {FIX}"
    )


def describe_suspects(
    report: NonFiniteReport, dataloader: DataLoader[Any], tokenizer: Tokenizer | None
) -> list[str]:
    """Return the lines about each micro-batch of this rank that may be the cause."""
    if report.bad_ranks and rank() not in report.bad_ranks and world_size() > 1:
        return []
    numbers = range(len(report.micro_losses))
    bad = [n for n in numbers if not math.isfinite(report.micro_losses[n])] or list(numbers)
    lines = []
    for number in bad:
        rows = rows_of(dataloader, report.first_micro_batch + number)
        where = f"rank {rank()}, micro-batch {report.first_micro_batch + number}"
        lines.append(f"{where}, {_named(rows)}")
        texts = _texts(rows, dataloader, tokenizer) or [
            _text(report.input_ids[number][0], tokenizer)
        ]
        lines += [f"   {text}" for text in texts if text]
    return lines


def _named(rows: list[int] | None) -> str:
    if rows is None:
        return "rows unknown"
    shown = ", ".join(map(str, rows[:MAX_ROWS_NAMED]))
    more = f" and {len(rows) - MAX_ROWS_NAMED} more" if len(rows) > MAX_ROWS_NAMED else ""
    return f"row{'s' * (len(rows) != 1)} {shown}{more}"


def _texts(
    rows: list[int] | None, dataloader: DataLoader[Any], tokenizer: Tokenizer | None
) -> list[str]:
    """Return the beginning of each row's text, if it can be looked up in the data set."""
    texts = []
    for row in (rows or [])[:MAX_ROWS_NAMED]:
        try:
            sample = dataloader.dataset[row]
            text = _text(sample["input_ids"], tokenizer)
        except (KeyError, IndexError, TypeError):
            continue
        texts.append(f"row {row}{_sources(sample, dataloader)}: {text}" if text else "")
    return texts


def _sources(sample: Mapping[str, Sequence[int]], dataloader: DataLoader[Any]) -> str:
    """Return of which sources of a mixture a row is, in words; empty for any other data."""
    names = mixed_sources_of(dataloader.dataset)
    found = dict.fromkeys(names[each] for each in sample.get("sources", ()) if each >= 0)
    return f" of {join_names(found)}" if found else ""


def _text(input_ids: Sequence[int] | torch.Tensor, tokenizer: Tokenizer | None) -> str:
    if tokenizer is None:
        return ""
    text = tokenizer.decode(input_ids[:TOKENS_SHOWN])
    return repr(text if len(text) <= CHARACTERS_SHOWN else f"{text[:CHARACTERS_SHOWN]}...")
