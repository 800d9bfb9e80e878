"""The schedule of a resumed run: the run's own at its present length, or a script's."""

from typing import Any

import torch
from torch.distributed.checkpoint.stateful import Stateful
from torch.optim.lr_scheduler import LRScheduler

from llama_recipes_local import configs
from llama_recipes_local.configs.optimizer_names import DECAYING
from llama_recipes_local.optimization.schedules import Schedule, factor_by_step, make_schedule
from llama_recipes_local.training.course import Course
from llama_recipes_local.training.train_state import TrainState


class RunSchedule:
    """The schedule of a run, and what it takes from a checkpoint's schedule."""

    def __init__(
        self,
        lr_scheduler: LRScheduler,
        optimizer: torch.optim.Optimizer,
        config: configs.train_config,
        course: Course,
        steps_per_epoch: int,
        in_run: bool,
    ) -> None:
        """Make the schedule that ``config`` names.

        Args:
            lr_scheduler: the one that a script gave.
            optimizer: its learning rates are set.
            config: the run's.
            course: has the steps of the run.
            steps_per_epoch: optimiser steps of an epoch.
            in_run: whether ``finetuning.main`` is running.
        """
        self.schedule: Schedule = make_schedule(
            lr_scheduler, optimizer, config, course.total_steps, steps_per_epoch
        )
        self._optimizer = optimizer
        self._config = config
        self._course = course
        self._steps_per_epoch = steps_per_epoch
        # a schedule of a script's own may be anything, so its state is loaded
        given = self.schedule.given and "schedule" not in config.resume_despite
        self._follows = in_run or not given

    @property
    def saved(self) -> Stateful:
        """The part of the schedule that a checkpoint saves; loading it does nothing in a run."""
        return _Followed(self.schedule) if self._follows else self.schedule

    def follow(self, state: TrainState, lr_before: float) -> None:
        """Take the next step's learning rate from this run's schedule, at its present length.

        Args:
            state: of the run that was saved; its ``total_steps`` are 0 if unknown.
            lr_before: the learning rate that the saved run would have had in the next step.
        """
        if not self._follows:
            return
        config, step, before = self._config, state.step, state.total_steps
        total_steps = self._course.total_steps
        factor = factor_by_step(config, total_steps, self._steps_per_epoch)
        self.schedule.follow(step, state.epoch, factor)
        lr = self._optimizer.param_groups[0]["lr"]
        stretched = config.scheduler in DECAYING and before not in (0, total_steps)
        if step < total_steps and (stretched or lr != lr_before):
            length = f"{total_steps} steps" + (f", not {before}" if stretched else "")
            print(
                f"--> the schedule of this run ({config.scheduler}) is over {length}: step "
                f"{step + 1} has learning rate {lr:.2e}, not {lr_before:.2e}"
            )


class _Followed:
    """A schedule whose saved state is only for information; see ``RunSchedule.follow``."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def state_dict(self) -> dict[str, Any]:
        return self._schedule.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""
