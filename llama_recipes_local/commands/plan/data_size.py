"""How much data a planned run has: by some of its rows where they can be tokenised, or by bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_recipes_local.planning.tokens import BYTES_A_TOKEN, epoch_bytes, held_out_tokens
from llama_recipes_local.run import Run

if TYPE_CHECKING:
    from llama_recipes_local.datasets.estimates import Estimate

INEXACT = "short rows in a chat template have twice as many: --dry_run counts them"
UNKNOWN = "its files are not here, not plain text or of several parts: give --tokens N"


@dataclass(frozen=True)
class DataPlan:
    """The data of an epoch.

    Attributes:
        tokens: that are trained; None if they are not known.
        counted: where the number of tokens comes from.
        held_out: tokens that are validated on; None if they are not known.
        training: the rows that are trained, if some were tokenised.
        validation: those that are validated on.
    """

    tokens: int | None = None
    counted: str = ""
    held_out: int | None = None
    training: Estimate | None = None
    validation: Estimate | None = None

    def padded_rows(self, run: Run) -> int | None:
        """Return the rows of an epoch; None for packed ones, or if they are not known."""
        if self.training is None or run.train.batching_strategy == "packing":
            return None
        return self.training.rows


def data_of(run: Run, given: int | None) -> DataPlan:
    """Return how much data a run has.

    Args:
        run: the run.
        given: the tokens of an epoch, as a flag says them; None if none does.

    Raises:
        UsageError: if a row that is looked at cannot be used.
    """
    if run.dataset is None or "dataset" not in run.given:
        return DataPlan(given, "" if given is None else "--tokens")
    if given is not None:
        return DataPlan(given, "--tokens", held_out_tokens(run))
    training, validation = _estimated(run)
    held_out = held_out_tokens(run) if validation is None else validation.tokens
    if training is not None:
        counted = f"estimated from {training.records:,} rows"
        counted = "as tokenised" if training.exact else counted
        return DataPlan(training.tokens, counted, held_out, training, validation)
    if (size := epoch_bytes(run)) is None:
        return DataPlan(None, UNKNOWN, held_out)
    counted = f"{size / 1e6:,.2f} MB at {BYTES_A_TOKEN} bytes a token; {INEXACT}"
    return DataPlan(size // BYTES_A_TOKEN, counted, held_out)


def _estimated(run: Run) -> tuple[Estimate | None, Estimate | None]:
    """Return what is trained and validated on; None without a tokenizer, which needs torch."""
    named = run.train.tokenizer_name or run.train.model_name
    if not Path(named).expanduser().is_dir():
        return None, None
    from llama_recipes_local.datasets.estimates import estimate
    from llama_recipes_local.models.loading import run_tokenizer
    from llama_recipes_local.preflight.model import check_tokenizer

    if check_tokenizer(run):
        return None, None
    tokenizer = run_tokenizer(run)
    training = estimate(run, "train", tokenizer)
    return training, estimate(run, "test", tokenizer) if run.train.run_validation else None
