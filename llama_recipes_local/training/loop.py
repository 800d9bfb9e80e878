"""``train``: upstream's signature and results, with the loss of the whole global batch.

The loss of a step is the mean over the label tokens of all its micro-batches on all ranks, so the
gradient does not depend on how the rows are distributed over micro-batches and ranks.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from llama_recipes_local import configs
from llama_recipes_local.configs.set_by_hand import refuse_unused
from llama_recipes_local.model_checkpointing import save_train_params
from llama_recipes_local.parallel import with_shared_gradients
from llama_recipes_local.policies import apply_activation_policy
from llama_recipes_local.run import active_run
from llama_recipes_local.run.logged_metrics import METRICS_FILE
from llama_recipes_local.training.answering import answered
from llama_recipes_local.training.history import History
from llama_recipes_local.training.kept_weights import load_kept_weights
from llama_recipes_local.training.loggers import WandbRun
from llama_recipes_local.training.parts import Parts
from llama_recipes_local.training.stepping import unwrapped
from llama_recipes_local.training.trainer import Trainer

__all__ = ["METRICS_FILE", "train"]


def train(
    model: nn.Module,
    train_dataloader: DataLoader[Any],
    eval_dataloader: DataLoader[Any] | None,
    tokenizer: PreTrainedTokenizerBase | None,
    optimizer: torch.optim.Optimizer,
    lr_scheduler: LRScheduler,
    gradient_accumulation_steps: int,
    train_config: configs.train_config,
    fsdp_config: configs.fsdp_config | None = None,
    local_rank: int | None = None,
    rank: int | None = None,
    wandb_run: WandbRun | None = None,
) -> dict[str, Any]:
    """Train the model on the batches of ``train_dataloader`` and save it.

    The model is saved after each validation with a lower loss, or after each epoch without
    validation.

    Args:
        model: the model, on its device, sharded or not.
        train_dataloader: micro-batches of this rank; each is a dict that the model takes, with
            ``input_ids`` and ``labels``.
        eval_dataloader: batches to validate on; None with ``run_validation=False``.
        tokenizer: the model's tokenizer.
        optimizer: the optimiser over the trained parameters.
        lr_scheduler: stepped once an epoch, as upstream does; ``train_config`` may replace
            it by another.
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
        InterruptedRun: if a signal stopped it; a checkpoint was saved.
        TrainingError: if a checkpoint cannot be saved, or not be resumed from.
        UsageError: if a configuration has an attribute that was meant for a field.
    """
    for config in (train_config, fsdp_config):
        refuse_unused(config)
    Path(train_config.output_dir).mkdir(parents=True, exist_ok=True)
    apply_activation_policy(unwrapped(model), train_config)
    run = active_run()
    parts = Parts(
        with_shared_gradients(model) if train_config.enable_fsdp else model,
        train_dataloader,
        tokenizer,
        optimizer,
        lr_scheduler,
        gradient_accumulation_steps,
        train_config,
        fsdp_config,
        wandb_run,
        History(train_config, local_rank),
        run,
    )
    trainer = Trainer(parts, eval_dataloader)
    if run is not None:
        run.stages.end("model")
    with answered(run, model, tokenizer):
        history = trainer.train()
        load_kept_weights(parts)
    if fsdp_config is not None and not train_config.use_peft and not rank:
        save_train_params(train_config, fsdp_config, rank or 0)
    if run is not None:
        run.results = parts.summary()
    return history.results()
