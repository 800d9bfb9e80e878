"""What the loop saves where: adapter or model, whole or sharded, as upstream's loop does."""

from typing import Any

import torch
from torch import nn

from llama_recipes_local import model_checkpointing as checkpoints


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
