"""The training loop: epochs of optimiser steps, with validation, reports and checkpoints."""

from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader

from llama_recipes_local import parallel
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.training import batches, retried_step, trial
from llama_recipes_local.training.early_stopping import judged
from llama_recipes_local.training.history import History
from llama_recipes_local.training.lost_worker import named_lost_worker
from llama_recipes_local.training.out_of_memory import StoppedOutOfMemoryError, told_apart
from llama_recipes_local.training.parts import Parts
from llama_recipes_local.training.profiling import profile, profile_step
from llama_recipes_local.training.progress import PendingStep
from llama_recipes_local.training.saving import Saver
from llama_recipes_local.training.signals import StopRequested
from llama_recipes_local.training.step_sync import sync_step
from llama_recipes_local.training.validating import Validator


class Trainer:
    """Runs epochs of optimiser steps over one model, validates, reports and saves.

    An epoch ends, and is counted, once its last step was validated. A run that ends within one, by
    ``max_train_step``, keeps its place there: resumed with a higher limit, it takes what is left.
    """

    def __init__(self, parts: Parts, eval_dataloader: DataLoader[Any] | None) -> None:
        """Train with these parts; without ``run_validation`` or batches for it, do not validate."""
        self.parts = parts
        self.saver = Saver(parts)
        self.validator: Validator | None = None
        if parts.config.run_validation and eval_dataloader is not None:
            self.validator = Validator(parts, eval_dataloader)

    def train(self) -> History:
        """Train until the last step, and return what happened."""
        parts = self.parts
        with parts.progress, parts.signals:
            try:
                with named_lost_worker(checkpoint=bool(parts.config.save_steps)):
                    self._train_in_memory()
            except StopRequested:
                self.saver.save_and_stop()
            except (TrainingError, OSError) as error:
                if isinstance(error, TrainingError) or parallel.world_size() == 1:
                    parts.checkpoints.writer.finish()  # the checkpoint in progress is valid
                raise
            finally:
                parts.checkpoints.writer.close()
                parts.folder.close()
        return parts.history

    def _train_in_memory(self) -> None:
        """Train; if memory runs out, save if this process can, and report what is saved.

        Raises:
            StoppedOutOfMemoryError: if memory ran out.
        """
        try:
            with told_apart():
                self._train_epochs()
            return
        except torch.OutOfMemoryError as error:
            said = str(error)
        # the error is gone, and the tensors of its frames with it
        parts = self.parts
        trial.free(parts.stepper)
        alone = parallel.world_size() == 1
        if alone and parts.state.step and not parts.stepper.updating:
            self.saver.save_checkpoint()
            parts.checkpoints.writer.finish()
        validating = self.validator is not None and self.validator.busy
        raise StoppedOutOfMemoryError(said, parts.checkpoints.newest(), validating)

    def _train_epochs(self) -> None:
        self._start()
        while self.parts.course.unfinished():
            with self.parts.history.epoch():
                self._train_epoch()
            self._end_epoch()
        self.saver.check_folder()

    def _start(self) -> None:
        """Resume from a checkpoint if there is one, else validate first."""
        parts, state, course = self.parts, self.parts.state, self.parts.course
        resumed = parts.checkpoints.load()
        if resumed is not None:
            parts.progress.resume(state, resumed.seconds, resumed.same_folder)
            course.measure()
            parts.progress.total_steps = course.total_steps
            course.print_if_complete()
            parts.schedule.follow(state, resumed.lr)
        state.total_steps = course.total_steps
        run = parts.run
        if run is not None and course.unfinished() and trial.is_due(run, parts.stepper):
            parts.at("a trial of the longest rows")
            trial.try_longest(run, parts.stepper, parts.data)
        if self.validator is not None and not state.step:
            parts.history.add_initial_evaluation(self.validator.evaluate())

    def _train_epoch(self) -> None:
        """Take the steps that are left of an epoch, or of the run."""
        parts, state, course = self.parts, self.parts.state, self.parts.course
        self._validate_if_due()
        parts.model.train()
        parts.progress.pause()
        steps = 0 if course.has_ended() else course.total_steps - state.step
        with profile(parts.config) as profiler:
            for micro_batches, waited in islice(parts.data.steps(state.epoch), steps):
                self._take_step(micro_batches, waited)
                counted = profile_step(profiler, parts.config, parts.stepper.device)
                parts.history.tflops = counted or parts.history.tflops
                if state.step == course.total_steps:
                    break
                self._validate_if_due()
                if course.has_ended():
                    break
                if parts.data.steps_left:  # the last step is saved after its epoch has ended
                    self.saver.save_checkpoint_if_due()
        parts.publish()

    def _take_step(self, micro_batches: list[batches.Batch], waited: float) -> None:
        """Take a step; if a rank is due to print, also fetch the numbers of the pending steps.

        Args:
            micro_batches: this rank's.
            waited: seconds that this rank waited for them.
        """
        parts, state, data = self.parts, self.parts.state, self.parts.data
        number = state.step + 1
        parts.at(f"step {number}", timed=True)
        report, stop = parts.progress.due(number), parts.signals.received is not None
        written, sources = parts.checkpoints.writer.written, len(data.sources)
        sync = sync_step(micro_batches, report, stop, written, sources)
        if sync.stop:
            raise StopRequested
        if sync.written:
            self.saver.check_folder()
            parts.checkpoints.writer.finish()
        lr = parts.optimizer.param_groups[0]["lr"]
        figures = retried_step.take(
            parts.run, parts.stepper, micro_batches, sync.label_tokens, number
        )
        first = data.since_resumed
        data.took(len(micro_batches))
        state.step = number
        parts.progress.add(
            PendingStep(
                step=number,
                epoch=state.epoch + data.steps_taken / data.steps_per_epoch,
                lr=lr,
                sync=sync,
                figures=figures,
                data_seconds=waited,
                first_micro_batch=first,
                input_ids=[batch["input_ids"] for batch in micro_batches],
            )
        )
        parts.schedule.schedule.after_step()
        if sync.report:
            parts.publish(show=True)

    def _end_epoch(self) -> None:
        """Validate and save as configured for the end of an epoch or of the run."""
        parts, state, course = self.parts, self.parts.state, self.parts.course
        self.saver.check_folder()
        finished = course.has_ended()
        parts.history.keep_open()  # a signal may stop the run in the validation
        if self.validator is None:
            self.saver.save_model()
        elif (finished or not parts.config.eval_steps) and state.validated != state.step:
            self._validate(self.validator)
        finished = course.has_ended()
        course.end()
        if not parts.data.steps_left and not parts.data.is_stream:
            parts.history.close()
            parts.schedule.schedule.after_epoch()
            state.epoch += 1
            parts.data.end_epoch()
        parts.history.save()
        self.saver.save_checkpoint_if_due(finished)
        if finished:
            parts.checkpoints.writer.finish()
        parts.progress.pause()

    def _validate_if_due(self) -> None:
        state, every = self.parts.state, self.parts.config.eval_steps
        if self.validator is None or not every or not state.step:
            return
        if state.step % every == 0 and state.validated != state.step:
            self._validate(self.validator)

    def _validate(self, validator: Validator) -> None:
        """Validate, and save the model if it is the best; leaves the model in training mode."""
        parts, state = self.parts, self.parts.state
        self.saver.check_folder()
        parts.publish()
        found = validator.evaluate()
        self.saver.check_folder()  # before this validation counts: a resumed run repeats it
        parts.history.add_evaluation(found)
        state.validated = state.step
        if judged(state, found, parts.config):
            self.saver.save_model()
        parts.model.train()
        parts.progress.pause()
