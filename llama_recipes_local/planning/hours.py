"""How long a run takes: its steps, and the validations before, between and after them."""

from dataclasses import dataclass
from math import ceil

from llama_recipes_local import configs
from llama_recipes_local.planning.search import Outcome


@dataclass(frozen=True)
class Duration:
    """How long a run takes.

    Attributes:
        steps: optimiser steps of all epochs, or those after which the run ends.
        training: seconds of the steps.
        validations: how many there are; 0 if their data is not known.
        validating: seconds of the validations.
    """

    steps: int
    training: float
    validations: int = 0
    validating: float = 0.0

    @property
    def hours(self) -> float:
        """Hours of steps and validations."""
        return (self.training + self.validating) / 3600


def duration(
    best: Outcome,
    train: configs.train_config,
    tokens: int,
    held_out: int | None,
    rows: int | None = None,
) -> Duration:
    """Return how long a run takes.

    A validation is a forward pass, which an adapter's step has beside a backward pass as long, a
    whole model's beside one twice as long, and recomputation a second time.

    Args:
        best: what the run's setting takes.
        train: its configuration.
        tokens: of an epoch.
        held_out: tokens of the part that is validated on; None if unknown.
        rows: of an epoch, packed as the run packs them; None for as few as hold the tokens.
    """
    setting, batch = best.setting, best.setting.batch
    row = batch.length if train.batching_strategy == "packing" else batch.document
    rows_of_step = batch.rows * batch.accumulation * setting.ranks.world
    of_step = rows_of_step * row
    # the last step of an epoch may have fewer rows
    an_epoch = max(ceil(tokens / of_step if rows is None else rows / rows_of_step), 1)
    steps = train.num_epochs * an_epoch
    if train.max_train_step:
        steps = min(train.max_train_step, steps)
    training = steps * of_step / best.tokens
    if not train.run_validation or not held_out:
        return Duration(steps, training)
    if train.max_eval_step:
        of_batch = train.val_batch_size * train.context_length * setting.ranks.world
        held_out = min(held_out, train.max_eval_step * of_batch)
    count = 1 + ceil(steps / (train.eval_steps or an_epoch))
    passes = (3 if setting.weights.trained else 2) + setting.recomputes
    return Duration(steps, training, count, count * held_out / best.tokens / passes)
