"""Each data set's tokens from its local files, under upstream's names for what loads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llama_recipes_local.datasets import alpaca, custom, grammar, samsum, toxicchat
from llama_recipes_local.datasets.base import Config, Dataset
from llama_recipes_local.datasets.tokenized_splits import load_split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_dataset(
    dataset: Dataset[Config],
    config: Config,
    tokenizer: PreTrainedTokenizerBase,
    split: str | None = None,
) -> Any:
    """Return the tokenised samples of a split.

    Args:
        dataset: the data set.
        config: its configuration.
        tokenizer: the model's.
        split: the configuration's name for the split; None means that of the training split.

    Raises:
        UsageError: if a file is missing or a record cannot be used.
    """
    name = split or config.train_split
    found = dataset.find(config, name, tokenizer)
    if found is not None:
        print(*found.notes, sep="\n", end="\n" if found.notes else "")
        return load_split(found, tokenizer).rows
    assert dataset.load is not None, f"{dataset.name} has neither split nor load"
    return dataset.load(config, tokenizer, name)


def get_grammar_dataset(
    dataset_config: grammar.grammar_dataset,
    tokenizer: PreTrainedTokenizerBase,
    csv_name: str | None = None,
) -> Any:
    """Load a file of wrong and corrected sentences; None means the configuration's for training."""
    return load_dataset(grammar.DATASET, dataset_config, tokenizer, csv_name)


def get_samsum_dataset(
    dataset_config: samsum.samsum_dataset, tokenizer: PreTrainedTokenizerBase, split: str
) -> Any:
    """Load dialogues and summaries."""
    return load_dataset(samsum.DATASET, dataset_config, tokenizer, split)


def get_alpaca_dataset(
    dataset_config: alpaca.alpaca_dataset,
    tokenizer: PreTrainedTokenizerBase,
    partition: str = "train",
) -> Any:
    """Load instructions; the first 5% are for validation, as upstream has it."""
    return load_dataset(alpaca.DATASET, dataset_config, tokenizer, partition)


def get_custom_dataset(
    dataset_config: custom.custom_dataset, tokenizer: PreTrainedTokenizerBase, split: str
) -> Any:
    """Call the user's function of ``file.py`` or ``file.py:function``, as upstream does."""
    return load_dataset(custom.DATASET, dataset_config, tokenizer, split)


def get_data_collator(
    dataset_processer: PreTrainedTokenizerBase, dataset_config: custom.custom_dataset
) -> Callable[..., Any] | None:
    """Return the collator that the user's ``get_data_collator`` makes, or None without one."""
    return custom.collator(dataset_config, dataset_processer)


def get_llamaguard_toxicchat_dataset(
    dataset_config: toxicchat.llamaguard_toxicchat_dataset,
    tokenizer: PreTrainedTokenizerBase,
    split: str,
) -> Any:
    """Format ToxicChat's conversations for Llama Guard with upstream's formatter."""
    return load_dataset(toxicchat.DATASET, dataset_config, tokenizer, split)


def load_toxicchat(dataset_config: toxicchat.llamaguard_toxicchat_dataset, split: str) -> Any:
    """Return ToxicChat's rows as a ``datasets.Dataset``; upstream's formatter calls this."""
    import datasets

    return datasets.Dataset.from_list(list(toxicchat.rows(dataset_config, split)))
