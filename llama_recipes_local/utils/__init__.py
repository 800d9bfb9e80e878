"""Upstream's ``utils``: this fork's training, data and sharding under upstream's names."""

from llama_recipes_local._upstream import fall_back
from llama_recipes_local.utils.dataset_utils import (
    get_custom_data_collator,
    get_dataloader,
    get_preprocessed_dataset,
)
from llama_recipes_local.utils.fsdp_utils import fsdp_auto_wrap_policy, hsdp_device_mesh
from llama_recipes_local.utils.train_utils import (
    cleanup,
    clear_gpu_cache,
    evaluation,
    get_policies,
    print_model_size,
    save_train_params,
    setup,
    setup_environ_flags,
    train,
)

__all__ = [
    "cleanup",
    "clear_gpu_cache",
    "evaluation",
    "fsdp_auto_wrap_policy",
    "get_custom_data_collator",
    "get_dataloader",
    "get_policies",
    "get_preprocessed_dataset",
    "hsdp_device_mesh",
    "print_model_size",
    "save_train_params",
    "setup",
    "setup_environ_flags",
    "train",
]

__getattr__ = fall_back("utils")
