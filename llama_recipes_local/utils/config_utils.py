"""Upstream's ``utils.config_utils``: configurations from flags, batches from configurations."""

from typing import Any

from torch.distributed.fsdp import StateDictType

from llama_recipes_local._upstream import fall_back
from llama_recipes_local.adapters import generate_peft_config
from llama_recipes_local.data.collation import PackedCollator, PaddedCollator
from llama_recipes_local.data.sharding import LengthGroupedBatchSampler, ShardedBatchSampler
from llama_recipes_local.parallel import rank, world_size
from llama_recipes_local.run import DATASET_CONFIGS, update_config

__all__ = [
    "check_fsdp_config",
    "generate_dataset_config",
    "generate_peft_config",
    "get_dataloader_kwargs",
    "update_config",
]


def generate_dataset_config(train_config: Any, kwargs: dict[str, Any]) -> Any:
    """Return the configuration of the data set that ``train_config.dataset`` names."""
    assert train_config.dataset in DATASET_CONFIGS, f"Unknown dataset: {train_config.dataset}"
    config = DATASET_CONFIGS[train_config.dataset]()
    update_config(config, **kwargs)
    return config


def check_fsdp_config(fsdp_config: Any) -> None:
    """Read ``checkpoint_type`` from its name, if that is what it is.

    Raises:
        ValueError: if checkpoints of that type are not made.
    """
    update_config(fsdp_config, checkpoint_type=fsdp_config.checkpoint_type)
    if fsdp_config.checkpoint_type == StateDictType.LOCAL_STATE_DICT:
        raise ValueError(f"Invalid checkpoint_type {fsdp_config.checkpoint_type}")


def get_dataloader_kwargs(
    train_config: Any, dataset: Any, dataset_processer: Any, mode: str
) -> dict[str, Any]:
    """Return how a ``DataLoader`` batches a data set on this rank.

    Args:
        train_config: its batch sizes, seed and ``batching_strategy``.
        dataset: the samples, or their ``ConcatDataset`` with packing.
        dataset_processer: the tokenizer.
        mode: "train" shuffles, anything else does not.

    Raises:
        ValueError: if the batching strategy is unknown.
    """
    training = mode == "train"
    batch_size = train_config.batch_size_training if training else train_config.val_batch_size
    place: dict[str, Any] = {
        "rank": rank() if train_config.enable_fsdp else 0,
        "num_replicas": world_size(),
        "shuffle": training,
        "seed": train_config.seed,
    }
    if train_config.batching_strategy == "packing":
        return {
            "batch_sampler": ShardedBatchSampler(len(dataset), batch_size, **place),
            "collate_fn": PackedCollator(dataset_processer.pad_token_id),
        }
    if train_config.batching_strategy == "padding":
        lengths = [len(sample["input_ids"]) for sample in dataset]
        return {
            "batch_sampler": LengthGroupedBatchSampler(lengths, batch_size, **place),
            "collate_fn": PaddedCollator(dataset_processer),
        }
    raise ValueError(f"Unknown batching strategy: {train_config.batching_strategy}")


__getattr__ = fall_back("utils.config_utils")
