"""How long a run takes: its steps, and the validations before, between and after them."""

from math import ceil

from llama_recipes_local import configs
from llama_recipes_local.planning.search import Outcome


def steps_of(best: Outcome, train: configs.train_config, tokens: int) -> float:
    """Return the optimiser steps of a run, of all epochs or those after which it ends.

    Args:
        best: what its setting takes.
        train: its configuration.
        tokens: of an epoch.
    """
    every = train.num_epochs * _steps_an_epoch(best, tokens)
    return min(train.max_train_step, every) if train.max_train_step > 0 else every


def validations(
    best: Outcome, train: configs.train_config, tokens: int, held_out: int
) -> tuple[int, float]:
    """Return how many validations a run has, and the seconds of all.

    Each is a forward pass, which an adapter's step has beside a backward pass as long, a whole
    model's beside one twice as long, and recomputation a second time.

    Args:
        best: what the run's setting takes.
        train: its configuration.
        tokens: of an epoch.
        held_out: tokens of the part that is validated on.
    """
    setting = best.setting
    if train.max_eval_step:
        batch = train.val_batch_size * train.context_length * setting.ranks.world
        held_out = min(held_out, train.max_eval_step * batch)
    steps = steps_of(best, train, tokens)
    count = 1 + ceil(steps / (train.eval_steps or _steps_an_epoch(best, tokens)))
    if not train.eval_steps:
        count = min(count, 1 + train.num_epochs)  # a sum of epochs may be rounded up
    passes = (3 if setting.weights.trained else 2) + setting.recomputes
    return count, count * held_out / best.tokens / passes


def _steps_an_epoch(best: Outcome, tokens: int) -> float:
    batch = best.setting.batch
    return tokens / (batch.tokens * batch.accumulation * best.setting.ranks.world)
