"""Upstream's ``utils.config_utils``: configurations from flags, batches from configurations."""

from typing import Any

import torch
from torch.distributed.fsdp import StateDictType

from llama_recipes_local._upstream import fall_back
from llama_recipes_local.adapters import generate_peft_config
from llama_recipes_local.data.collation import BlankCollator, PackedCollator, PaddedCollator
from llama_recipes_local.data.sharding import LengthGroupedBatchSampler, ShardedBatchSampler
from llama_recipes_local.data.streaming import SampleStream, is_stream
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import refuse
from llama_recipes_local.fields import update_config
from llama_recipes_local.models.precision import weight_dtype
from llama_recipes_local.parallel import device_type, rank, world_size
from llama_recipes_local.preflight.data_rules import stream_problems
from llama_recipes_local.run import active_run
from llama_recipes_local.run.resolution import resolve_dataset
from llama_recipes_local.training.signals import leave_signals_to_the_trainer

__all__ = [
    "check_fsdp_config",
    "generate_dataset_config",
    "generate_peft_config",
    "get_dataloader_kwargs",
    "update_config",
]

HALF_PRECISION_MULTIPLE = 8  # see data.collation.PaddedCollator
PREFETCHED = 4  # batches a worker makes ahead


def generate_dataset_config(train_config: Any, kwargs: dict[str, Any]) -> Any:
    """Return the configuration of the data set that ``train_config.dataset`` names."""
    assert train_config.dataset in DATASETS, f"Unknown dataset: {train_config.dataset}"
    return resolve_dataset(train_config, kwargs)


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
        dataset: the samples, or their ``ConcatDataset`` with packing; a stream is dealt here.
        dataset_processer: the tokenizer.
        mode: "train" shuffles, anything else does not.

    Raises:
        ValueError: if the batching strategy is unknown.
        UsageError: if a stream is not told how long to go on.
    """
    if train_config.batching_strategy not in ("packing", "padding"):
        raise ValueError(f"Unknown batching strategy: {train_config.batching_strategy}")
    training = mode == "train"
    batch_size = train_config.batch_size_training if training else train_config.val_batch_size
    place: dict[str, Any] = {
        "rank": rank() if train_config.enable_fsdp else 0,
        "num_replicas": world_size(),
        "shuffle": training,
        "seed": train_config.seed,
    }
    collate = {"collate_fn": _collator(train_config, dataset_processer)}
    if is_stream(dataset):
        measure_stream(dataset, train_config, training)
        dataset.shard(batch_size, **place)
        return {"batch_size": None, **collate, **_workers(train_config, persistent=False)}
    sampler = _sampler(train_config, dataset, batch_size, place)
    return {"batch_sampler": sampler, **collate, **_workers(train_config, persistent=True)}


def measure_stream(stream: SampleStream, train_config: Any, training: bool) -> None:
    """Tell a stream how many micro-batches are asked of it; validation reads it once.

    Raises:
        UsageError: if nothing says how many.
    """
    refuse(stream_problems(train_config))
    if training:
        steps = train_config.max_train_step
        stream.micro_batches = steps * train_config.gradient_accumulation_steps
    else:
        stream.micro_batches = train_config.max_eval_step
        stream.passes = 1


def _sampler(
    train_config: Any, dataset: Any, batch_size: int, place: dict[str, Any]
) -> ShardedBatchSampler:
    if train_config.batching_strategy == "packing":
        return ShardedBatchSampler(len(dataset), batch_size, **place)
    lengths = getattr(dataset, "lengths", None)
    if lengths is None and "input_ids" not in dataset[0]:
        print("--> rows have no input_ids: batches are not of like length")
        return ShardedBatchSampler(len(dataset), batch_size, **place)
    if lengths is None:
        lengths = [len(sample["input_ids"]) for sample in dataset]
    return LengthGroupedBatchSampler(lengths, batch_size, **place)


def _collator(train_config: Any, tokenizer: Any) -> Any:
    if train_config.batching_strategy == "packing":
        return PackedCollator(tokenizer.pad_token_id)
    return BlankCollator(PaddedCollator(tokenizer, _padding_multiple(train_config)))


def _padding_multiple(train_config: Any) -> int:
    half = train_config.mixed_precision or weight_dtype(train_config) != torch.float32
    return HALF_PRECISION_MULTIPLE if half and device_type() == "cuda" else 1


def _workers(train_config: Any, persistent: bool) -> dict[str, Any]:
    """Return how workers run ahead; a stream's are started anew, to be told where it begins.

    Outside a run nothing is returned: ``DataLoader`` refuses it without workers, and whether the
    caller asks for any, as ``main`` does, is not known.
    """
    if active_run() is None or not train_config.num_workers_dataloader:
        return {}
    return {
        "prefetch_factor": PREFETCHED,
        "persistent_workers": persistent,
        "worker_init_fn": leave_signals_to_the_trainer,
    }


__getattr__ = fall_back("utils.config_utils")
