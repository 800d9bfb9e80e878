"""Upstream's ``utils.dataset_utils``, over this fork's data sets and packing."""

from typing import Any

from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from llama_recipes_local import configs
from llama_recipes_local.configs.protocols import DatasetConfig, Part
from llama_recipes_local.configs.set_by_hand import refuse_unused
from llama_recipes_local.data.collation import BlankCollator, BlankRows
from llama_recipes_local.data.concatenator import ConcatDataset
from llama_recipes_local.data.streaming import as_stream, is_stream
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.datasets.base import split_name
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.datasets.sources import load_dataset
from llama_recipes_local.run import active_run
from llama_recipes_local.utils.config_utils import get_dataloader_kwargs, measure_stream


def get_preprocessed_dataset(
    tokenizer: PreTrainedTokenizerBase, dataset_config: DatasetConfig, split: str = "train"
) -> Any:
    """Return the tokenised samples of a data set's "train" or other split.

    In a run they were prepared before ``main`` began.

    Samples that come one by one, as an ``IterableDataset``, are returned as a ``SampleStream``.

    Raises:
        NotImplementedError: if the data set is unknown.
        UsageError: if they are a stream, and no ``max_train_step`` ends it, or if the configuration
            has an attribute that was meant for a field.
    """
    refuse_unused(dataset_config)
    if dataset_config.dataset not in DATASETS:
        raise NotImplementedError(f"{dataset_config.dataset} is not (yet) implemented")
    declared = DATASETS[dataset_config.dataset]
    active = active_run()
    part: Part = "train" if split == "train" else "test"
    if active is not None and active.data is not None:
        dataset = active.data.splits[part]
    else:
        name = split_name(dataset_config, part)
        dataset = load_dataset(declared, dataset_config, tokenizer, name)
    if is_stream(dataset):
        stream = as_stream(dataset)
        if active is not None:
            measure_stream(stream, active.train, training=split == "train")
        return stream
    if isinstance(dataset, TokenRows) or declared.collator is None:
        return dataset
    return BlankRows(dataset)


def get_custom_data_collator(
    dataset_processer: PreTrainedTokenizerBase, dataset_config: DatasetConfig
) -> BlankCollator | None:
    """Return the collator that the data set brings, or None.

    It is never called without rows, see ``data.collation.BlankCollator``.
    """
    active = active_run()
    if active is not None and active.train.tokens_path:
        return None  # rows that were tokenised ahead; the user's file is not run
    declared = DATASETS.get(dataset_config.dataset)
    make = declared.collator if declared else None
    collate = make(dataset_config, dataset_processer) if make else None
    return BlankCollator(collate) if collate else None


def get_dataloader(
    tokenizer: PreTrainedTokenizerBase,
    dataset_config: DatasetConfig,
    train_config: configs.train_config,
    split: str = "train",
) -> DataLoader[Any]:
    """Return a split's batches as ``train`` takes them."""
    refuse_unused(train_config)
    dataset = get_preprocessed_dataset(tokenizer, dataset_config, split)
    if train_config.batching_strategy == "packing":
        dataset = ConcatDataset(dataset, chunk_size=train_config.context_length)
    return DataLoader(
        dataset,
        num_workers=train_config.num_workers_dataloader,
        pin_memory=True,
        **get_dataloader_kwargs(train_config, dataset, tokenizer, split),
    )
