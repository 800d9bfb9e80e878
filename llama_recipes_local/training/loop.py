"""``train``: upstream's signature and results, the loss of the whole global batch.

The loss of a step is the mean over the label tokens of all its micro-batches on all ranks, so the
gradient does not depend on how the rows are spread over micro-batches and ranks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llama_recipes_local import model_checkpointing as checkpoints
from llama_recipes_local import parallel
from llama_recipes_local.checkpoints import rng_state
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.optimization.parameter_groups import split_lora_plus
from llama_recipes_local.optimization.schedules import Schedule, complete
from llama_recipes_local.parallel import is_rank_zero
from llama_recipes_local.policies import apply_fsdp_checkpointing
from llama_recipes_local.run import active_run
from llama_recipes_local.training import batches, nonfinite
from llama_recipes_local.training.checkpointing import Checkpointing
from llama_recipes_local.training.data_iterator import Feed
from llama_recipes_local.training.evaluation import evaluation
from llama_recipes_local.training.flops import peak_flops, training_flops
from llama_recipes_local.training.history import History
from llama_recipes_local.training.loggers import METRICS_FILE, make_loggers
from llama_recipes_local.training.profiling import profile, profile_step
from llama_recipes_local.training.progress import FetchedStep, PendingStep, Progress
from llama_recipes_local.training.saving import save
from llama_recipes_local.training.signals import Signals, StopRequested
from llama_recipes_local.training.step_sync import agree, any_rank
from llama_recipes_local.training.stepping import Stepper, unwrapped

__all__ = ["METRICS_FILE", "TrainState", "Trainer", "train"]


def train(
    model: nn.Module,
    train_dataloader: Any,
    eval_dataloader: Any,
    tokenizer: Any,
    optimizer: torch.optim.Optimizer,
    lr_scheduler: Any,
    gradient_accumulation_steps: int,
    train_config: Any,
    fsdp_config: Any = None,
    local_rank: int | None = None,
    rank: int | None = None,
    wandb_run: Any = None,
) -> dict[str, Any]:
    """Train the model on the batches of ``train_dataloader`` and save it.

    The model is saved after each validation at which the loss fell; after each epoch if there is no
    validation.

    Args:
        model: the model, on its device, sharded or not.
        train_dataloader: micro-batches of this rank; each is a dict that the model takes, with
            ``input_ids`` and ``labels``.
        eval_dataloader: batches to validate on; None goes with ``run_validation=False``.
        tokenizer: the model's tokenizer.
        optimizer: the optimiser over the trained parameters.
        lr_scheduler: stepped once an epoch, as upstream does; another takes its place if
            ``train_config`` asks for one.
        gradient_accumulation_steps: micro-batches in an optimiser step.
        train_config: see ``configs.train_config``; ``max_train_step`` counts optimiser steps.
        fsdp_config: see ``configs.fsdp_config``; None without FSDP.
        local_rank: this process's rank on its host; None without FSDP.
        rank: this process's global rank; None without FSDP.
        wandb_run: a Weights & Biases run to log to, or None.

    Returns:
        Upstream's keys: ``avg_train_prep``, ``avg_train_loss``, ``avg_eval_prep``,
        ``avg_eval_loss``, ``avg_epoch_time``, ``avg_checkpoint_time``; ``metrics_filename`` with
        ``save_metrics``, ``model_tflops`` with ``flop_counter``.

    Raises:
        NonFiniteError: if a loss or gradient is not finite on any rank; no weight was changed.
        InterruptedRun: if a signal asked to stop; a checkpoint was saved.
        TrainingError: if a checkpoint cannot be saved, or not be gone on from.
    """
    Path(train_config.output_dir).mkdir(parents=True, exist_ok=True)
    if train_config.gradient_checkpointing and not train_config.enable_fsdp:
        apply_fsdp_checkpointing(unwrapped(model))
    trainer = Trainer(
        model,
        train_dataloader,
        eval_dataloader if train_config.run_validation else None,
        tokenizer,
        optimizer,
        lr_scheduler,
        gradient_accumulation_steps,
        train_config,
        fsdp_config,
        History(train_config, local_rank),
        wandb_run,
    )
    history = trainer.run()
    if fsdp_config is not None and not train_config.use_peft and not rank:
        checkpoints.save_train_params(train_config, fsdp_config, rank or 0)
    active = active_run()
    if active is not None:
        active.results = history.summary()
    return history.results()


@dataclass
class TrainState:
    """How far a run has come.

    Attributes:
        step: optimiser steps done.
        epoch: epochs done.
        best_loss: the lowest loss that the model was saved at.
        validated: the step of the last validation.
    """

    step: int = 0
    epoch: int = 0
    best_loss: float = float("inf")
    validated: int = -1


class Trainer:
    """Runs epochs of optimiser steps over one model, validates, reports and saves.

    The epoch at hand ends, and is counted, once its last step was validated.
    """

    def __init__(
        self,
        model: nn.Module,
        train_dataloader: Any,
        eval_dataloader: Any,
        tokenizer: Any,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any,
        accumulation_steps: int,
        train_config: Any,
        fsdp_config: Any,
        history: History,
        wandb_run: Any,
    ) -> None:
        self.model = model
        self.feed = Feed(train_dataloader, accumulation_steps, train_config.seed)
        self.eval_dataloader = eval_dataloader
        self.tokenizer = tokenizer
        self.optimizer = optimizer
        self.config = train_config
        self.fsdp_config = fsdp_config
        self.history = history
        self.state = TrainState()
        self.total_steps = self._all_steps()
        split_lora_plus(model, optimizer, train_config.loraplus_lr_ratio)
        self.schedule: Schedule = complete(
            lr_scheduler, optimizer, train_config, self.total_steps, self.feed.steps_per_epoch
        )
        self.stepper = Stepper(model, optimizer, train_config)
        self.progress = Progress(
            self.total_steps,
            make_loggers(train_config, wandb_run) if is_rank_zero() else [],
            training_flops(unwrapped(model)),
            peak_flops(self.stepper.device),
        )
        self.signals = Signals(enabled=active_run() is not None)
        self.checkpointing = Checkpointing(self)

    def run(self) -> History:
        """Train until the last step, and return what happened."""
        with self.progress, self.signals:
            try:
                self._begin()
                while self._unfinished():
                    with self.history.epoch():
                        self._train_epoch()
                    self._end_epoch()
            except StopRequested:
                self.checkpointing.stop()
            except TrainingError:
                self.checkpointing.writer.finish()  # what was being saved is sound
                raise
            finally:
                self.checkpointing.writer.close()
        return self.history

    def _all_steps(self) -> int:
        """Return the optimiser steps of the run, from where it is, and those it has taken."""
        epochs_left = self.config.num_epochs - self.state.epoch - 1
        left = self.feed.steps_left + self.feed.steps_per_epoch * epochs_left
        total = self.state.step + left
        return min(total, self.config.max_train_step or total)

    def _begin(self) -> None:
        """Go on from a checkpoint if there is one to go on from, else validate first."""
        if self.checkpointing.resume():
            self.total_steps = self.progress.total_steps = self._all_steps()
        if self.eval_dataloader is not None and self.history.initial_eval_loss is None:
            self.history.add_initial_evaluation(self.evaluate())

    def _unfinished(self) -> bool:
        """Whether steps are left, or the epoch of the last one was not ended."""
        steps_left = self.state.step < self.total_steps
        return (steps_left or self.feed.taken > 0) and self.state.epoch < self.config.num_epochs

    def evaluate(self) -> tuple[float, list[float]]:
        """Evaluate, print and log on the first rank; return the loss and each batch's."""
        if is_rank_zero():
            print("validating ...", end=" ", flush=True)
        model = unwrapped(self.model)
        with rng_state.fork_rng():
            ppl, loss, step_losses, _ = evaluation(
                model, self.config, self._unless_asked_to_stop(), None, self.tokenizer, None
            )
        if is_rank_zero():
            print(f"loss {loss:.4f}  perplexity {ppl:.3f}", flush=True)
        self.progress.log("eval", {"step": self.state.step, "loss": loss, "perplexity": ppl})
        self.progress.pause()
        return loss, step_losses

    def _train_epoch(self) -> None:
        """Take the steps that are left of an epoch, as far as the run goes."""
        self._validate_if_due()
        self.model.train()
        self.progress.pause()
        steps = max(self.total_steps - self.state.step, 0)
        with profile(self.config) as profiler:
            for micro_batches, waited in islice(self.feed.steps(self.state.epoch), steps):
                self._take_step(micro_batches, waited)
                counted = profile_step(profiler, self.config, self.stepper.device)
                self.history.tflops = counted or self.history.tflops
                if self.state.step == self.total_steps:
                    break
                self._validate_if_due()
                if self.feed.steps_left:  # the last step is saved when its epoch has ended
                    self.checkpointing.save_if_due()
        self.publish()

    def _take_step(self, micro_batches: list[batches.Batch], waited: float) -> None:
        """Take a step, and fetch its numbers and those before if a rank wants to print them.

        Args:
            micro_batches: this rank's.
            waited: seconds that were waited for them.
        """
        state = self.state
        report, stop = self.progress.due(state.step + 1), self.signals.received is not None
        plan = agree(micro_batches, report, stop, self.checkpointing.writer.written)
        if plan.stop:
            raise StopRequested
        if plan.written:
            self.checkpointing.writer.finish()
        lr = self.optimizer.param_groups[0]["lr"]
        figures = self.stepper.step(micro_batches, plan.label_tokens)
        first = self.feed.since_resumed
        self.feed.took(len(micro_batches))
        state.step += 1
        self.progress.add(
            PendingStep(
                step=state.step,
                epoch=state.epoch + self.feed.steps_taken / self.feed.steps_per_epoch,
                lr=lr,
                plan=plan,
                figures=figures,
                data_seconds=waited,
                first_micro_batch=first,
                input_ids=[batch["input_ids"] for batch in micro_batches],
            )
        )
        self.schedule.after_step()
        if plan.report:
            self.publish(line=True)

    def publish(self, line: bool = False) -> None:
        """Fetch the numbers of the pending steps; all ranks call this together.

        Raises:
            NonFiniteError: if one of the steps had a loss or gradient that is not finite.
        """
        for fetched in self.progress.fetch(line):
            if fetched.stop:
                nonfinite.stop(_fault(fetched), self.feed.dataloader, self.tokenizer)
            self.history.add_step(fetched.metrics.loss, fetched.metrics.label_tokens)

    def _end_epoch(self) -> None:
        """Validate where an epoch or the run asks for it, and save."""
        finished = self.state.step >= self.total_steps
        if self.eval_dataloader is None:
            self._save()
        elif (finished or not self.config.eval_steps) and self.state.validated != self.state.step:
            self._validate()
        self.schedule.after_epoch()
        self.state.epoch += 1
        self.feed.end_epoch()
        self.history.save()
        self.checkpointing.save_if_due(finished)
        if finished:
            self.checkpointing.writer.finish()
        self.progress.pause()

    def _validate_if_due(self) -> None:
        every, step = self.config.eval_steps, self.state.step
        if every and step and step % every == 0 and self.state.validated != step:
            self._validate()

    def _unless_asked_to_stop(self) -> Iterator[batches.Batch]:
        """Yield the batches to validate on, until a rank is asked to stop."""
        for batch in self.eval_dataloader:
            if any_rank(self.signals.received is not None):
                raise StopRequested
            yield batch

    def _validate(self) -> None:
        """Validate, and save the model if the loss fell; training goes on after it."""
        self.publish()
        loss = self.history.add_evaluation(self.evaluate())
        self.state.validated = self.state.step
        if loss < self.state.best_loss:
            self.state.best_loss = loss
            self._save()
        self.model.train()
        self.progress.pause()

    def _save(self) -> None:
        if not self.config.save_model:
            return
        model, epoch = unwrapped(self.model), self.state.epoch
        with self.history.checkpoint():
            save(model, self.optimizer, parallel.rank(), self.config, self.fsdp_config, epoch)

    def last_validation_loss(self) -> float | None:
        """Return the loss of a validation after this very step, if there was one."""
        return self.history.eval_loss[-1] if self.state.validated == self.state.step else None


def _fault(fetched: FetchedStep) -> nonfinite.Fault:
    pending = fetched.pending
    return nonfinite.Fault(
        step=pending.step,
        bad_ranks=fetched.bad_ranks,
        micro_losses=pending.figures.micro_losses.tolist(),
        first_micro_batch=pending.first_micro_batch,
        input_ids=list(pending.input_ids),
    )
