"""How many steps a run has, whether it has ended, and what a resumed run prints about it."""

from llama_recipes_local import configs
from llama_recipes_local.training.data_iterator import DataIterator
from llama_recipes_local.training.early_stopping import stops_early
from llama_recipes_local.training.train_state import TrainState


class Course:
    """The steps of a run, from the first to the last.

    Attributes:
        total_steps: optimiser steps of the whole run.
    """

    def __init__(self, config: configs.train_config, state: TrainState, data: DataIterator) -> None:
        self._config = config
        self._state = state
        self._data = data
        self._ended_at = -1  # the step at which this process last ended an epoch, or the run
        self.total_steps = 0
        self.measure()

    def measure(self) -> None:
        """Count the optimiser steps of the run: those done and those left."""
        data, state, config = self._data, self._state, self._config
        left = data.steps_left + data.steps_per_epoch * (config.num_epochs - state.epoch - 1)
        total = state.step + left
        self.total_steps = min(total, config.max_train_step or total)

    def has_ended(self) -> bool:
        """Whether no step is left, or early stopping ends the run."""
        return self._state.step >= self.total_steps or stops_early(self._state, self._config)

    def unfinished(self) -> bool:
        """Whether steps are left, or work that is due after the last one."""
        end_due = self._data.taken > 0 and self._ended_at != self._state.step
        epochs_left = self._state.epoch < self._config.num_epochs
        return (not self.has_ended() or end_due) and epochs_left

    def end(self) -> None:
        """Note that the work due after this step is being done: it ends an epoch or the run."""
        self._ended_at = self._state.step

    def print_if_complete(self) -> None:
        """Print that a resumed run has no step left, if so; its losses are not new."""
        config, step = self._config, self._state.step
        if not self.has_ended():
            return
        if step < self.total_steps:
            print(
                f"--> this run stopped early, after step {step} of {self.total_steps}: nothing is "
                f"trained; more than --early_stopping_patience {config.early_stopping_patience} "
                "continues it"
            )
            return
        limited = 0 < config.max_train_step <= step
        more = f"max_train_step {step}" if limited else f"num_epochs {self._state.epoch}"
        print(
            f"--> this run is complete after step {step} of {max(step, self.total_steps)}: nothing "
            f"is trained; more than --{more} continues it"
        )
