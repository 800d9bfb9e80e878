"""``train``: upstream's signature and results, the loss of the whole global batch.

The loss of a step is the mean over the label tokens of all its micro-batches on all ranks, so the
gradient does not depend on how the rows are spread over micro-batches and ranks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llama_recipes_local import model_checkpointing as checkpoints
from llama_recipes_local import run
from llama_recipes_local._upstream import load
from llama_recipes_local.models.precision import compute_context
from llama_recipes_local.parallel import (
    all_reduce_sum,
    compute_device,
    full_tensor,
    is_rank_zero,
    set_gradient_sync,
    world_size,
)
from llama_recipes_local.training import batches
from llama_recipes_local.training.evaluation import evaluation
from llama_recipes_local.training.history import History
from llama_recipes_local.training.progress import Progress

METRICS_FILE = "metrics.jsonl"


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

    The model is saved after each epoch in which the validation loss fell; after each epoch if there
    is no validation.

    Args:
        model: the model, on its device, sharded or not.
        train_dataloader: micro-batches of this rank; each is a dict that the model takes, with
            ``input_ids`` and ``labels``.
        eval_dataloader: batches to validate on; None goes with ``run_validation=False``.
        tokenizer: the model's tokenizer.
        optimizer: the optimiser over the trained parameters.
        lr_scheduler: stepped once an epoch, as upstream does.
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
    """
    output = Path(train_config.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    trainer = _Trainer(model, optimizer, gradient_accumulation_steps, train_config, wandb_run)
    history = History(train_config, local_rank)
    validate = train_config.run_validation and eval_dataloader is not None
    if validate:
        history.add_initial_evaluation(trainer.evaluate(eval_dataloader, tokenizer))
    total = _total_steps(len(train_dataloader), gradient_accumulation_steps, train_config)
    best = float("inf")
    with Progress(output / METRICS_FILE, total) as progress:
        for epoch in range(train_config.num_epochs):
            if trainer.steps == total:
                break
            with history.epoch():
                _set_epoch(train_dataloader, epoch)
                trainer.train_epoch(train_dataloader, epoch, total, progress, history)
            lr_scheduler.step()
            loss = history.train_loss[-1]
            if validate:
                loss = history.add_evaluation(trainer.evaluate(eval_dataloader, tokenizer))
            if train_config.save_model and (not validate or loss < best):
                best = min(best, loss)
                with history.checkpoint():
                    save(model, optimizer, rank or 0, train_config, fsdp_config, epoch)
            progress.pause()
            history.save()
    if fsdp_config is not None and not train_config.use_peft and not rank:
        checkpoints.save_train_params(train_config, fsdp_config, rank or 0)
    active = run.active()
    if active is not None:
        active.results = history.summary()
    return history.results()


class _Trainer:
    """Takes optimiser steps with one model and one optimiser."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        accumulation_steps: int,
        train_config: Any,
        wandb_run: Any,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.accumulation_steps = accumulation_steps
        self.config = train_config
        self.wandb_run = wandb_run
        self.device = compute_device(model)
        self.trained = [p for group in optimizer.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=train_config.use_fp16)
        self.steps = 0

    def evaluate(self, dataloader: Any, tokenizer: Any) -> tuple[float, list[float]]:
        """Evaluate and print, on rank 0 only; return the loss and each batch's."""
        if is_rank_zero():
            print("validating ...", end=" ", flush=True)
        ppl, loss, step_losses, _ = evaluation(
            self.model, self.config, dataloader, None, tokenizer, self.wandb_run
        )
        if is_rank_zero():
            print(f"loss {loss:.4f}  perplexity {ppl:.3f}", flush=True)
        return loss, step_losses

    def train_epoch(
        self, dataloader: Any, epoch: int, total: int, progress: Progress, history: "History"
    ) -> None:
        """Take an epoch's steps, until ``total`` steps have been taken in all."""
        self.model.train()
        steps_per_epoch = -(-len(dataloader) // self.accumulation_steps)
        progress.pause()
        with profile(self.config) as profiler:
            for index, micro_batches in enumerate(
                batches.in_steps(dataloader, self.accumulation_steps), 1
            ):
                loss, grad_norm, label_tokens = self.step(micro_batches)
                self.steps += 1
                history.add_step(loss, label_tokens)
                progress.step(
                    step=self.steps,
                    epoch=epoch + index / steps_per_epoch,
                    loss=loss,
                    lr=self.optimizer.param_groups[0]["lr"],
                    grad_norm=grad_norm,
                    label_tokens=label_tokens,
                    tokens=sum(batches.tokens(batch) for batch in micro_batches),
                )
                if self.wandb_run is not None:
                    logged = {"train/epoch": epoch + 1, "train/step": self.steps}
                    self.wandb_run.log(logged | {"train/loss": loss})
                if profiler is not None:
                    profiler.step()
                if self.config.flop_counter and profiler.is_done():
                    history.tflops = profiler.get_flops_per_sec() / 1e12
                if self.steps == total:
                    break

    def step(self, micro_batches: list[batches.Batch]) -> tuple[float, float | None, int]:
        """Take one optimiser step over this rank's micro-batches.

        Returns:
            The loss, the gradient's norm before clipping (None without clipping), and the label
            tokens, all of the global batch.
        """
        counted = torch.tensor(float(sum(map(batches.label_tokens, micro_batches))))
        label_tokens = all_reduce_sum(counted.to(self.device))
        # gradients are averaged over ranks, the loss is summed over them
        share = label_tokens.clamp(min=1) / world_size()
        loss_sum = torch.zeros((), device=self.device)
        # entered anew each step: autocast keeps its casts of the weights until it is left
        with compute_context(self.model, self.config):
            for index, batch in enumerate(micro_batches, 1):
                set_gradient_sync(self.model, index == len(micro_batches))
                inputs = batches.prepare(batch, self.device)
                loss = self.model(**inputs, num_items_in_batch=share).loss
                self.scaler.scale(loss).backward()
                loss_sum += loss.detach()
        grad_norm = self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return float(all_reduce_sum(loss_sum)) / world_size(), grad_norm, int(label_tokens)

    def _clip(self) -> float | None:
        threshold = self.config.gradient_clipping_threshold
        if not self.config.gradient_clipping or threshold <= 0:
            return None
        self.scaler.unscale_(self.optimizer)
        return float(full_tensor(nn.utils.clip_grad_norm_(self.trained, threshold)))


def save(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rank: int,
    train_config: Any,
    fsdp_config: Any,
    epoch: int,
) -> None:
    """Save the adapter or the model as upstream's loop does; all ranks call this together."""
    if train_config.use_peft:
        checkpoints.save_peft_checkpoint(model, train_config.output_dir)
    elif fsdp_config is None:
        checkpoints.save_model_checkpoint(model, train_config.output_dir)
    elif fsdp_config.checkpoint_type == checkpoints.StateDictType.FULL_STATE_DICT:
        checkpoints.save_fsdp_model_checkpoint_full(model, optimizer, rank, train_config, epoch)
        if train_config.save_optimizer:
            checkpoints.save_optimizer_checkpoint(model, optimizer, rank, train_config, epoch)
    else:
        kept = optimizer if train_config.save_optimizer else None
        checkpoints.save_model_and_optimizer_sharded(model, rank, train_config, kept)


@contextmanager
def profile(train_config: Any) -> Iterator[Any]:
    """Profile or count FLOPs as upstream does, where a flag asks for it; else yield None."""
    if train_config.use_profiler or train_config.flop_counter:
        with load("utils.train_utils").profile(train_config) as profiler:
            yield profiler
    else:
        yield None


def _total_steps(micro_batches: int, accumulation_steps: int, train_config: Any) -> int:
    total = -(-micro_batches // accumulation_steps) * train_config.num_epochs
    return min(total, train_config.max_train_step or total)


def _set_epoch(dataloader: Any, epoch: int) -> None:
    for name in ("batch_sampler", "sampler"):
        sampler: Any = getattr(dataloader, name, None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
