"""Learning-rate schedules: upstream's per epoch, others per optimiser step, with warm-up."""

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from llama_recipes_local import configs

Factor = Callable[[int], float]
"""From a step, counted from 0, to its fraction of ``lr``."""


class Schedule:
    """The schedule that ``train`` follows, called after each step and each epoch.

    Attributes:
        scheduler: torch's; its state is all there is to save.
        given: whether it is a scheduler that ``train`` was called with.
    """

    def __init__(self, scheduler: LRScheduler, every_step: bool) -> None:
        self.scheduler = scheduler
        self.given = not every_step
        self._every_step = every_step

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON-ready data, without what the run's configuration gives."""
        plain = (int, float, bool, str, list, type(None))
        return {
            key: value
            for key, value in self.scheduler.state_dict().items()
            if isinstance(value, plain) and key != "lr_lambdas"
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from ``state``."""
        if isinstance(self.scheduler, LambdaLR):
            state = state | {"lr_lambdas": [None] * len(self.scheduler.lr_lambdas)}
        self.scheduler.load_state_dict(state)

    def follow(self, steps: int, epochs: int, factor: Factor) -> None:
        """Set the learning rates as if this schedule had been followed from the start.

        Args:
            steps: optimiser steps done.
            epochs: epochs done.
            factor: what ``factor_by_step`` returns for the length that the run has now.
        """
        if not self._every_step:
            for _ in range(epochs):
                self.scheduler.step()
            return
        assert isinstance(self.scheduler, LambdaLR)
        self.scheduler.lr_lambdas = [factor] * len(self.scheduler.lr_lambdas)
        self.scheduler.last_epoch = steps - 1
        self.scheduler.step()

    def after_step(self) -> None:
        """Set the learning rate of the next step."""
        if self._every_step:
            self.scheduler.step()

    def after_epoch(self) -> None:
        """Set the learning rate of the next epoch, if the schedule is per epoch."""
        if not self._every_step:
            self.scheduler.step()


def make_schedule(
    given: LRScheduler,
    optimizer: Optimizer,
    train_config: configs.train_config,
    total_steps: int,
    steps_per_epoch: int,
) -> Schedule:
    """Return the schedule of ``train_config``, now that the run's length is known.

    Args:
        given: the scheduler that ``train`` was called with; used, once an epoch, unless the
            configuration names another.
        optimizer: each of its groups follows the schedule from its own learning rate.
        train_config: its ``scheduler``, ``warmup_steps``, ``min_lr_ratio``, ``wsd_decay_ratio``
            and ``gamma``.
        total_steps: optimiser steps of the run.
        steps_per_epoch: optimiser steps of an epoch.
    """
    rates = getattr(given, "base_lrs", None)
    covers_all = rates is None or len(rates) == len(optimizer.param_groups)
    if train_config.scheduler == "step" and not train_config.warmup_steps and covers_all:
        return Schedule(given, every_step=False)
    if 0 < total_steps <= train_config.warmup_steps:
        reached = train_config.lr * total_steps / train_config.warmup_steps
        print(
            f"--> --warmup_steps {train_config.warmup_steps:,} is not less than the run's "
            f"{total_steps:,} steps: the learning rate ends at {reached:.2e}, below --lr"
        )
    factor = factor_by_step(train_config, total_steps, steps_per_epoch)
    return Schedule(LambdaLR(optimizer, factor), every_step=True)


def factor_by_step(
    train_config: configs.train_config, total_steps: int, steps_per_epoch: int
) -> Factor:
    """Return the fraction of ``lr`` by step.

    In warm-up, step ``s`` of ``w`` has ``(s + 1) / w``: no step is at 0. A decay goes from 1 in its
    first step towards ``min_lr_ratio``, which the step after the last would reach.
    """
    warmup = train_config.warmup_steps
    shape = _shape(train_config, total_steps, steps_per_epoch)

    def factor(step: int) -> float:
        return (step + 1) / warmup if step < warmup else shape(step)

    return factor


def _shape(train_config: configs.train_config, total_steps: int, steps_per_epoch: int) -> Factor:
    """Return the schedule after its warm-up."""
    name, warmup = train_config.scheduler, train_config.warmup_steps
    if name == "step":
        return lambda step: train_config.gamma ** (step // steps_per_epoch)
    if name == "constant":
        return lambda step: 1.0
    start = warmup
    if name == "wsd":
        start = max(warmup, total_steps - round(train_config.wsd_decay_ratio * total_steps))
    lowest = train_config.min_lr_ratio

    def decay(step: int) -> float:
        done = min(max(step - start, 0) / max(total_steps - start, 1), 1.0)
        left = (1 + math.cos(math.pi * done)) / 2 if name == "cosine" else 1 - done
        return lowest + (1 - lowest) * left

    return decay
