"""Upstream's ``utils.config_utils``: configurations from flags, and batches from them."""

import os
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch.distributed.fsdp import StateDictType
from transformers import PreTrainedTokenizerBase

from llama_recipes_local import configs
from llama_recipes_local._upstream import fall_back
from llama_recipes_local.adapters import generate_peft_config
from llama_recipes_local.configs.protocols import DatasetConfig
from llama_recipes_local.data.batch_sampler import (
    GroupedBatchSampler,
    LengthGroupedBatchSampler,
    ShardedBatchSampler,
)
from llama_recipes_local.data.collation import BlankCollator, PackedCollator, PaddedCollator
from llama_recipes_local.data.streaming import SampleStream
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import refuse
from llama_recipes_local.field_values import update_config
from llama_recipes_local.models.precision import weight_dtype
from llama_recipes_local.parallel import device_type, rank, world_size
from llama_recipes_local.preflight.data_rules import stream_problems
from llama_recipes_local.run import active_run
from llama_recipes_local.run.resolution import resolve_dataset
from llama_recipes_local.storage import open_files
from llama_recipes_local.training.signals import start_worker

__all__ = [
    "check_fsdp_config",
    "generate_dataset_config",
    "generate_peft_config",
    "get_dataloader_kwargs",
    "update_config",
]

HALF_PRECISION_MULTIPLE = 8  # see data.collation.PaddedCollator
PREFETCHED = 4  # batches that a worker prepares ahead


def generate_dataset_config(
    train_config: configs.train_config, kwargs: dict[str, Any]
) -> DatasetConfig:
    """Return the configuration of the data set that ``train_config.dataset`` names."""
    assert train_config.dataset in DATASETS, f"Unknown dataset: {train_config.dataset}"
    return resolve_dataset(train_config, kwargs)


def check_fsdp_config(fsdp_config: configs.fsdp_config) -> None:
    """Convert ``checkpoint_type`` from its name to the enumeration, if it is a name.

    Raises:
        ValueError: if checkpoints of that type are not made.
    """
    update_config(fsdp_config, checkpoint_type=fsdp_config.checkpoint_type)
    if fsdp_config.checkpoint_type == StateDictType.LOCAL_STATE_DICT:
        raise ValueError(f"Invalid checkpoint_type {fsdp_config.checkpoint_type}")


class Rows(Protocol):
    """A data set of rows that can be looked up, such as torch's or datasets'."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


def get_dataloader_kwargs(
    train_config: configs.train_config,
    dataset: Rows | SampleStream,
    dataset_processer: PreTrainedTokenizerBase,
    mode: str,
) -> dict[str, Any]:
    """Return how a ``DataLoader`` batches a data set on this rank.

    Args:
        train_config: its batch sizes, seed and ``batching_strategy``.
        dataset: the samples, with packing their ``ConcatDataset``, or a stream.
        dataset_processer: the tokenizer.
        mode: "train" shuffles, anything else does not.

    Raises:
        ValueError: if the batching strategy is unknown.
        UsageError: if a stream has no ``max_train_step`` that ends it.
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
    if isinstance(dataset, SampleStream):
        measure_stream(dataset, train_config, training)
        dataset.shard(batch_size, **place)
        return {"batch_size": None, **collate, **_workers(train_config, persistent=False)}
    group = train_config.length_group_size if training else 0
    sampler = _sampler(train_config, dataset, batch_size, group, place)
    return {"batch_sampler": sampler, **collate, **_workers(train_config, persistent=True)}


def measure_stream(
    stream: SampleStream, train_config: configs.train_config, training: bool
) -> None:
    """Set how many micro-batches a stream yields; in validation it is read once.

    Raises:
        UsageError: if no flag says how many.
    """
    if training or train_config.run_validation:
        refuse(stream_problems(train_config, training))
    if training:
        steps = train_config.max_train_step
        stream.micro_batches = steps * train_config.gradient_accumulation_steps
    else:
        stream.micro_batches = train_config.max_eval_step
        stream.passes = 1


def _sampler(
    train_config: configs.train_config,
    dataset: Rows,
    batch_size: int,
    group: int,
    place: dict[str, Any],
) -> ShardedBatchSampler | GroupedBatchSampler:
    groups = getattr(dataset, "groups", None)
    if groups is None:
        return _sampler_of(train_config, dataset, batch_size, group, place)
    names: tuple[str, ...] = tuple(getattr(dataset, "names", ()))
    rows = [np.flatnonzero(groups == number) for number in range(len(names))]
    lengths = getattr(dataset, "lengths", None)
    samplers = [
        ShardedBatchSampler(len(each), batch_size, **place)
        if lengths is None
        else LengthGroupedBatchSampler(lengths[each], batch_size, group, **place)
        for each in rows
    ]
    return GroupedBatchSampler(names, list(zip(rows, samplers, strict=True)))


def _sampler_of(
    train_config: configs.train_config,
    dataset: Rows,
    batch_size: int,
    group: int,
    place: dict[str, Any],
) -> ShardedBatchSampler:
    if train_config.batching_strategy == "packing":
        return ShardedBatchSampler(len(dataset), batch_size, **place)
    lengths = getattr(dataset, "lengths", None)
    if lengths is None and "input_ids" not in dataset[0]:
        print("--> rows have no input_ids: batches are not grouped by length")
        return ShardedBatchSampler(len(dataset), batch_size, **place)
    if lengths is None:
        lengths = [len(dataset[row]["input_ids"]) for row in range(len(dataset))]
    return LengthGroupedBatchSampler(lengths, batch_size, group, **place)


def _collator(
    train_config: configs.train_config, tokenizer: PreTrainedTokenizerBase
) -> PackedCollator | BlankCollator:
    if train_config.batching_strategy == "packing":
        return PackedCollator(tokenizer.pad_token_id)
    return BlankCollator(PaddedCollator(tokenizer, _padding_multiple(train_config)))


def _padding_multiple(train_config: configs.train_config) -> int:
    half = train_config.mixed_precision or weight_dtype(train_config) != torch.float32
    return HALF_PRECISION_MULTIPLE if half and device_type() == "cuda" else 1


def _workers(train_config: configs.train_config, persistent: bool) -> dict[str, Any]:
    """Return how workers prefetch; a stream's are restarted each epoch, to learn where it starts.

    It applies only in a run: ``DataLoader`` refuses these settings without ``num_workers``, which
    ``main`` passes but a script may not.
    """
    if active_run() is None or not train_config.num_workers_dataloader:
        return {}
    open_files.raise_limit()
    return {
        "prefetch_factor": PREFETCHED,
        "persistent_workers": persistent,
        "worker_init_fn": partial(start_worker, os.getpid()),
    }


__getattr__ = fall_back("utils.config_utils")
