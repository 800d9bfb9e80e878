"""Saves and loads models, adapters and optimisers, under upstream's names.

Files are safetensors and JSON. They are written to a draft and renamed into place, and do not
depend on the number of ranks.
"""

from torch.distributed.fsdp import StateDictType

from llama_recipes_local.model_checkpointing.checkpoint_handler import (
    checkpoint_folder,
    load_model_checkpoint,
    load_model_sharded,
    load_optimizer_checkpoint,
    load_sharded_model_single_gpu,
    save_fsdp_model_checkpoint_full,
    save_model_and_optimizer_sharded,
    save_model_checkpoint,
    save_optimizer_checkpoint,
    save_peft_checkpoint,
    save_train_params,
    save_trained,
)

__all__ = [
    "StateDictType",
    "checkpoint_folder",
    "load_model_checkpoint",
    "load_model_sharded",
    "load_optimizer_checkpoint",
    "load_sharded_model_single_gpu",
    "save_fsdp_model_checkpoint_full",
    "save_model_and_optimizer_sharded",
    "save_model_checkpoint",
    "save_optimizer_checkpoint",
    "save_peft_checkpoint",
    "save_train_params",
    "save_trained",
]
