"""The training loop: epochs of optimiser steps, with validation, reports and checkpoints."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.stateful import Stateful
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from llama_recipes_local import configs, parallel
from llama_recipes_local._upstream import load
from llama_recipes_local.checkpoints import rng_state
from llama_recipes_local.configs.optimizer_names import DECAYING
from llama_recipes_local.errors import InterruptedRun, TrainingError
from llama_recipes_local.model_checkpointing import save_trained
from llama_recipes_local.optimization.parameter_groups import split_lora_plus
from llama_recipes_local.optimization.schedules import (
    Schedule,
    factor_by_step,
    make_schedule,
)
from llama_recipes_local.parallel import is_rank_zero
from llama_recipes_local.run import Run
from llama_recipes_local.training import batches, nonfinite, trial
from llama_recipes_local.training.answering import Scorer
from llama_recipes_local.training.checkpointing import CheckpointManager
from llama_recipes_local.training.data_iterator import DataIterator
from llama_recipes_local.training.early_stopping import judged, stops_early
from llama_recipes_local.training.evaluation import Evaluated, evaluate, groups_of, perplexity
from llama_recipes_local.training.flops import peak_flops, training_flops
from llama_recipes_local.training.history import History
from llama_recipes_local.training.loggers import WandbRun, make_loggers
from llama_recipes_local.training.lost_folder import FolderGuard, lost_folder
from llama_recipes_local.training.lost_worker import named_lost_worker
from llama_recipes_local.training.out_of_memory import StoppedOutOfMemoryError, figures, told_apart
from llama_recipes_local.training.progress import FetchedStep, PendingStep, Progress
from llama_recipes_local.training.signals import Signals, StopRequested
from llama_recipes_local.training.step_sync import any_rank, sync_step
from llama_recipes_local.training.stepping import Figures, Stepper, unwrapped
from llama_recipes_local.training.train_state import TrainState


class Trainer:
    """Runs epochs of optimiser steps over one model, validates, reports and saves.

    An epoch ends, and is counted, once its last step was validated. A run that ends within one, by
    ``max_train_step``, keeps its place there: resumed with a higher limit, it takes what is left.
    """

    def __init__(
        self,
        model: nn.Module,
        train_dataloader: DataLoader[Any],
        eval_dataloader: DataLoader[Any] | None,
        tokenizer: PreTrainedTokenizerBase | None,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: LRScheduler,
        accumulation_steps: int,
        train_config: configs.train_config,
        fsdp_config: configs.fsdp_config | None,
        history: History,
        wandb_run: WandbRun | None,
        run: Run | None,
        scorer: Scorer | None = None,
    ) -> None:
        """Build all that a training needs; see ``loop.train`` for the arguments.

        Args:
            eval_dataloader: None trains without validation.
            history: collects the losses and times.
            scorer: scores the model's answers at each validation; None does not.
            run: the run that ``finetuning.main`` is in; None in a script, whose signals are its
                own and whose checkpoints do not describe a run.
        """
        self.model = model
        self.eval_dataloader = eval_dataloader
        self._scorer = scorer
        self.tokenizer = tokenizer
        self.optimizer = optimizer
        self.config = train_config
        self.fsdp_config = fsdp_config
        self.history = history
        self.state = TrainState()
        self._validating = False
        self._ended_at = -1  # the step at which this process last ended an epoch, or the run
        self.data = DataIterator(train_dataloader, accumulation_steps, train_config, self.state)
        self.total_steps = self._all_steps()
        split_lora_plus(model, optimizer, train_config.loraplus_lr_ratio)
        self.schedule: Schedule = make_schedule(
            lr_scheduler,
            optimizer,
            train_config,
            self.total_steps,
            self.data.steps_per_epoch,
        )
        self.stepper = Stepper(model, optimizer, train_config)
        self.progress = Progress(
            self.total_steps,
            make_loggers(train_config, wandb_run, run) if is_rank_zero() else [],
            training_flops(unwrapped(model)),
            peak_flops(self.stepper.device),
            train_config.num_epochs,
        )
        self._run = run
        self._watch = run.watch if run is not None else None
        self.signals = Signals(
            enabled=run is not None, watch=self._watch, called=run is not None and run.called
        )
        self.folder = FolderGuard(Path(train_config.output_dir), enabled=run is not None)
        # a schedule of a script's own may be anything, so its state is loaded
        self._follows = (
            run is not None or not self.schedule.given or "schedule" in train_config.resume_despite
        )
        self.states: dict[str, Stateful] = {
            "state": self.state,
            "history": history,
            "stepper": self.stepper,
            "schedule": _Followed(self.schedule) if self._follows else self.schedule,
            "feed": self.data,
        }
        self.checkpoints = CheckpointManager(
            unwrapped(model), optimizer, self.states, train_config, run
        )

    def train(self) -> History:
        """Train until the last step, and return what happened."""
        with self.progress, self.signals:
            try:
                with named_lost_worker(checkpoint=bool(self.config.save_steps)):
                    self._train_in_memory()
            except StopRequested:
                self._save_and_stop()
            except (TrainingError, OSError) as error:
                if isinstance(error, TrainingError) or parallel.world_size() == 1:
                    self.checkpoints.writer.finish()  # the checkpoint in progress is valid
                raise
            finally:
                self.checkpoints.writer.close()
                self.folder.close()
        return self.history

    def _train_in_memory(self) -> None:
        """Train; if memory runs out, save where this process can, and say what is saved.

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
        trial.free(self.stepper)
        alone, step = parallel.world_size() == 1, self.state.step
        if alone and step and not self.stepper.updating:
            self._save_checkpoint()
            self.checkpoints.writer.finish()
        raise StoppedOutOfMemoryError(said, self.checkpoints.newest(), self._validating)

    def _train_epochs(self) -> None:
        self._start()
        while self._unfinished():
            with self.history.epoch():
                self._train_epoch()
            self._end_epoch()
        self._check_folder()

    def _all_steps(self) -> int:
        """Return the optimiser steps of the run: those done and those left."""
        epochs_left = self.config.num_epochs - self.state.epoch - 1
        left = self.data.steps_left + self.data.steps_per_epoch * epochs_left
        total = self.state.step + left
        return min(total, self.config.max_train_step or total)

    def _start(self) -> None:
        """Resume from a checkpoint if there is one, else validate first."""
        resumed = self.checkpoints.load()
        if resumed is not None:
            self.progress.resume(self.state, resumed.seconds, resumed.same_folder)
            before = self.state.total_steps
            self.total_steps = self.progress.total_steps = self._all_steps()
            self._print_if_complete()
            if self._follows:
                self._follow_schedule(before, resumed.lr)
        self.state.total_steps = self.total_steps
        if self._run is not None and self._unfinished() and trial.is_due(self._run, self.stepper):
            self._at("a trial of the longest rows")
            trial.try_longest(self._run, self.stepper, self.data)
        if self.eval_dataloader is not None and not self.state.step:
            self.history.add_initial_evaluation(self.evaluate())

    def _follow_schedule(self, steps_before: int, lr_before: float) -> None:
        """Take the next step's learning rate from this run's schedule, at its present length.

        Args:
            steps_before: of the run that was saved; 0 if unknown.
            lr_before: the learning rate that it would have had in the next step.
        """
        config, step = self.config, self.state.step
        factor = factor_by_step(config, self.total_steps, self.data.steps_per_epoch)
        self.schedule.follow(step, self.state.epoch, factor)
        lr = self.optimizer.param_groups[0]["lr"]
        stretched = config.scheduler in DECAYING and steps_before not in (0, self.total_steps)
        if step < self.total_steps and (stretched or lr != lr_before):
            length = f"{self.total_steps} steps" + (f", not {steps_before}" if stretched else "")
            print(
                f"--> the schedule of this run ({config.scheduler}) is over {length}: step "
                f"{step + 1} has learning rate {lr:.2e}, not {lr_before:.2e}"
            )

    def _print_if_complete(self) -> None:
        """Say that a resumed run has no step left, rather than report losses as of a training."""
        step = self.state.step
        if not self._has_ended():
            return
        if step < self.total_steps:
            more = f"early_stopping_patience {self.config.early_stopping_patience}"
            print(
                f"--> this run stopped early, after step {step} of {self.total_steps}: nothing is "
                f"trained; more than --{more} continues it"
            )
            return
        limited = 0 < self.config.max_train_step <= step
        more = f"max_train_step {step}" if limited else f"num_epochs {self.state.epoch}"
        print(
            f"--> this run is complete after step {step} of {max(step, self.total_steps)}: nothing "
            f"is trained; more than --{more} continues it"
        )

    def _has_ended(self) -> bool:
        """Whether no step is left, or no validation has been better for long."""
        return self.state.step >= self.total_steps or stops_early(self.state, self.config)

    def _unfinished(self) -> bool:
        """Whether steps are left, or what is due after the last one."""
        end_due = self.data.taken > 0 and self._ended_at != self.state.step
        return (not self._has_ended() or end_due) and self.state.epoch < self.config.num_epochs

    def evaluate(self) -> Evaluated:
        """Evaluate; show and log on the first rank."""
        began = time.perf_counter()
        model = unwrapped(self.model)
        self._validating = True
        with rng_state.fork_rng():
            groups = groups_of(self.eval_dataloader)
            found = evaluate(model, self.config, self._until_stopped(), groups)
        self._validating = False
        ppl = perplexity(found.loss)
        seconds = time.perf_counter() - began
        by_source = found.by_source
        self.progress.display.validated(found.loss, ppl, self.state.step, seconds, by_source)
        numbers = {"step": self.state.step, "loss": found.loss, "perplexity": ppl}
        of_sources = {f"loss/{name}": loss for name, loss in by_source.items()}
        if self._scorer is not None:
            with rng_state.fork_rng():
                scores = self._scorer.scores(model, self.progress.display, self._stop_if_asked)
            found = replace(found, scores=scores)
        self.progress.log("eval", numbers | of_sources | found.scores)
        self.progress.pause()
        return found

    def _train_epoch(self) -> None:
        """Take the steps that are left of an epoch, or of the run."""
        self._validate_if_due()
        self.model.train()
        self.progress.pause()
        steps = 0 if self._has_ended() else self.total_steps - self.state.step
        with _profile(self.config) as profiler:
            for micro_batches, waited in islice(self.data.steps(self.state.epoch), steps):
                self._take_step(micro_batches, waited)
                counted = _profile_step(profiler, self.config, self.stepper.device)
                self.history.tflops = counted or self.history.tflops
                if self.state.step == self.total_steps:
                    break
                self._validate_if_due()
                if self._has_ended():
                    break
                if self.data.steps_left:  # the last step is saved after its epoch has ended
                    self._save_checkpoint_if_due()
        self.publish()

    def _take_step(self, micro_batches: list[batches.Batch], waited: float) -> None:
        """Take a step; fetch its numbers and those before if a rank is due to print.

        Args:
            micro_batches: this rank's.
            waited: seconds that this rank waited for them.
        """
        state = self.state
        self._at(f"step {state.step + 1}", timed=True)
        report, stop = self.progress.due(state.step + 1), self.signals.received is not None
        sync = sync_step(micro_batches, report, stop, self.checkpoints.writer.written)
        if sync.stop:
            raise StopRequested
        if sync.written:
            self._check_folder()
            self.checkpoints.writer.finish()
        lr = self.optimizer.param_groups[0]["lr"]
        numbers = self._step(micro_batches, sync.label_tokens)
        first = self.data.since_resumed
        self.data.took(len(micro_batches))
        state.step += 1
        self.progress.add(
            PendingStep(
                step=state.step,
                epoch=state.epoch + self.data.steps_taken / self.data.steps_per_epoch,
                lr=lr,
                sync=sync,
                figures=numbers,
                data_seconds=waited,
                first_micro_batch=first,
                input_ids=[batch["input_ids"] for batch in micro_batches],
            )
        )
        self.schedule.after_step()
        if sync.report:
            self.publish(show=True)

    def _step(self, micro_batches: list[batches.Batch], label_tokens: int) -> Figures:
        """Compute a step; one that is out of memory is computed again, with less kept of layers.

        Of several ranks the others wait for this one in the middle of theirs, so it has to end.
        """
        run, alone = self._run, parallel.world_size() == 1
        before = rng_state.state_dict() if alone else {}
        while True:
            try:
                with told_apart():
                    return self.stepper.step(micro_batches, label_tokens)
            except torch.OutOfMemoryError as error:
                if run is None or not alone or self.stepper.updating:
                    raise
                said = str(error)
            trial.free(self.stepper)
            rng_state.load_state_dict(before)
            print(f"--> Out of memory in step {self.state.step + 1}: {figures(said)}")
            changed = trial.keep_less(run, self.stepper)
            if not changed:
                raise torch.OutOfMemoryError(said)
            print(f"--> Stepping down, and computing the step again: {changed}")

    def publish(self, show: bool = False) -> None:
        """Fetch the numbers of the pending steps; all ranks call this together.

        Raises:
            NonFiniteError: if one of the steps had a loss or gradient that is not finite.
        """
        for fetched in self.progress.fetch(show):
            if fetched.stop:
                self._raise_non_finite(fetched)
            metrics = fetched.metrics
            self.history.add_step(metrics.loss, metrics.label_tokens, metrics.tokens)

    def _end_epoch(self) -> None:
        """Validate and save as configured for the end of an epoch or of the run."""
        self._check_folder()
        finished = self._has_ended()
        self.history.keep_open()  # a signal may stop the run in the validation
        if self.eval_dataloader is None:
            self._save_model()
        elif (finished or not self.config.eval_steps) and self.state.validated != self.state.step:
            self._validate()
        finished = self._has_ended()
        self._ended_at = self.state.step
        if not self.data.steps_left and not self.data.is_stream:
            self.history.close()
            self.schedule.after_epoch()
            self.state.epoch += 1
            self.data.end_epoch()
        self.history.save()
        self._save_checkpoint_if_due(finished)
        if finished:
            self.checkpoints.writer.finish()
        self.progress.pause()

    def _at(self, what: str, timed: bool = False) -> None:
        """Say where this rank is, for those that wait for it; see ``parallel.Watch``."""
        if self._watch is not None:
            self._watch.at(what, timed)

    def _validate_if_due(self) -> None:
        every, step = self.config.eval_steps, self.state.step
        if every and step and step % every == 0 and self.state.validated != step:
            self._validate()

    def _until_stopped(self) -> Iterator[batches.Batch]:
        """Yield the validation batches, until a rank receives a signal to stop."""
        loader, began = self.eval_dataloader or (), time.perf_counter()
        limits = [self.config.max_eval_step] if self.config.max_eval_step else []
        total = min(len(loader), *limits) if limits else len(loader)
        self.progress.display.validating(0, total, 0.0)
        for done, batch in enumerate(loader):
            self._at("a validation")
            if done:
                self.progress.display.validating(done, total, time.perf_counter() - began)
            self._stop_if_asked()
            yield batch

    def _stop_if_asked(self) -> None:
        """Raise ``StopRequested`` if a rank has received a signal to stop."""
        if any_rank(self.signals.received is not None):
            raise StopRequested

    def _validate(self) -> None:
        """Validate, and save the model if it is the best; leaves the model in training mode."""
        self._check_folder()
        self.publish()
        found, state = self.evaluate(), self.state
        self._check_folder()  # before this validation counts: a resumed run repeats it
        self.history.add_evaluation(found)
        state.validated = state.step
        if judged(state, found, self.config):
            self._save_model()
        self.model.train()
        self.progress.pause()

    def _save_model(self) -> None:
        if not self.config.save_model:
            return
        self._at("saving the model")
        model, epoch = unwrapped(self.model), self.state.epoch
        with self.history.checkpoint():
            save_trained(
                model, self.optimizer, parallel.rank(), self.config, self.fsdp_config, epoch
            )

    def _save_checkpoint_if_due(self, finished: bool = False) -> None:
        """Save each ``save_steps`` steps, and after the last of all."""
        every = self.config.save_steps
        if every and (finished or self.state.step % every == 0):
            self._save_checkpoint()

    def _save_checkpoint(self) -> None:
        """Save a checkpoint of this step unless there is one; publish the one before it."""
        self._check_folder()
        self.checkpoints.writer.finish()
        state = self.state
        if self.checkpoints.is_saved(state.step):
            return
        self._at("saving a checkpoint")
        self.publish()
        history, validated = self.history, state.validated == state.step
        validation = (history.eval_loss[-1], history.last_eval_tokens) if validated else None
        with self.history.checkpoint():
            self.checkpoints.save(state.step, validation, self.progress.seconds)
        self.progress.pause()

    def _check_folder(self) -> None:
        """Save elsewhere and stop if the output folder is not in its place.

        A model that was removed with it is no longer the best: the resumed run saves its next one,
        or, if the run was complete, this one is saved again.

        Raises:
            LostFolderError: if it was moved or removed; on all ranks.
        """
        loss = self.folder.loss()
        if loss is None:
            return
        self.publish()
        self.checkpoints.move_to(loss.refuge)
        step = self.state.step
        if loss.removed:
            self.state.forget_validations()
        self.checkpoints.save(step, None, self.progress.seconds)
        self.checkpoints.writer.finish()
        if loss.removed and not self._unfinished():
            self.config = replace(self.config, output_dir=str(loss.refuge))
            self._save_model()
        raise lost_folder(loss, step, self.total_steps, self.checkpoints.folder_of(step))

    def _save_and_stop(self) -> None:
        """Save, and end the run after a signal.

        Raises:
            InterruptedRun: always.
        """
        self._save_checkpoint()
        self.checkpoints.writer.finish()
        step = self.state.step
        if not step:
            raise InterruptedRun("stopped before the first step; there is nothing to save")
        raise InterruptedRun(
            f"stopped after step {step} of {self.total_steps}, saved in "
            f"{self.checkpoints.folder_of(step)}\n"
            "   resume with the same command and --resume_from_checkpoint auto"
        )

    def _raise_non_finite(self, fetched: FetchedStep) -> None:
        pending = fetched.pending
        report = nonfinite.NonFiniteReport(
            step=pending.step,
            bad_ranks=fetched.bad_ranks,
            micro_losses=pending.figures.micro_losses.tolist(),
            first_micro_batch=pending.first_micro_batch,
            input_ids=list(pending.input_ids),
        )
        nonfinite.raise_non_finite(report, self.data.dataloader, self.tokenizer)


@dataclass(frozen=True)
class _Followed:
    """A schedule whose saved state only informs: see ``Trainer._follow_schedule``."""

    schedule: Schedule

    def state_dict(self) -> dict[str, Any]:
        return self.schedule.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""


@contextmanager
def _profile(train_config: configs.train_config) -> Iterator[Any]:
    """Profile or count FLOPs as upstream does, where a flag asks for it; else yield None."""
    if train_config.use_profiler or train_config.flop_counter:
        with load("utils.train_utils").profile(train_config) as profiler:
            yield profiler
    else:
        yield None


def _profile_step(
    profiler: Any,  # torch's profiler or upstream's FlopMeasure, which have no common type
    train_config: configs.train_config,
    device: torch.device,
) -> float | None:
    """End the profiler's step; return TFLOPS once counted."""
    if profiler is None:
        return None
    if train_config.flop_counter and device.type == "cuda":
        torch.cuda.synchronize(device)  # it takes the time from one step to the next
    profiler.step()
    if not train_config.flop_counter or not profiler.is_done():
        return None
    return profiler.get_flops_per_sec() / 1e12
