"""Each data set from its local files, under upstream's names for the functions that load them.

``SPLITS`` has all but two: ToxicChat's tokens are upstream's formatter's, and those of a custom
data set are its function's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from llama_recipes_local._upstream import load
from llama_recipes_local.datasets import alpaca, custom, grammar, guanaco, samsum, toxicchat
from llama_recipes_local.datasets.base import Split
from llama_recipes_local.datasets.loading import load_split
from llama_recipes_local.datasets.local import local_split
from llama_recipes_local.messages import join_names

Part = Literal["train", "test"]


def split_name(config: Any, part: Part) -> str:
    """Return the configuration's name for a part: its ``train_split`` or its ``test_split``."""
    return str(config.train_split if part == "train" else config.test_split)


def _of(split: Callable[[Any, str], Split], config: Any, part: Part) -> Split:
    return split(config, split_name(config, part))


SPLITS: dict[str, Callable[[Any, Part], Split]] = {
    "alpaca_dataset": partial(_of, alpaca.split),
    "grammar_dataset": partial(_of, grammar.split),
    "guanaco_dataset": partial(_of, guanaco.split),
    "local_dataset": partial(_of, local_split),
    "samsum_dataset": partial(_of, samsum.split),
}


def get_grammar_dataset(
    dataset_config: Any, tokenizer: PreTrainedTokenizerBase, csv_name: str | None = None
) -> Any:
    """Load a file of wrong and corrected sentences; None means the configuration's for training."""
    return _load(grammar.split(dataset_config, csv_name or dataset_config.train_split), tokenizer)


def get_samsum_dataset(dataset_config: Any, tokenizer: PreTrainedTokenizerBase, split: str) -> Any:
    """Load dialogues and summaries."""
    read = join_names(map(str, samsum.find(dataset_config, split)))
    print(f"--> samsum_dataset: {split} is read from {read}")
    return _load(samsum.split(dataset_config, split), tokenizer)


def get_alpaca_dataset(
    dataset_config: Any, tokenizer: PreTrainedTokenizerBase, partition: str = "train"
) -> Any:
    """Load instructions; the first 5% are for validation, as upstream has it."""
    split = alpaca.split(dataset_config, partition)
    print(f"--> alpaca_dataset: {partition} is {split.part} of {split.files[0]}")
    return _load(split, tokenizer)


def get_guanaco_dataset(dataset_config: Any, tokenizer: PreTrainedTokenizerBase, split: str) -> Any:
    """Load conversations, of which the assistant's turns are trained."""
    return _load(guanaco.split(dataset_config, split), tokenizer)


def get_local_dataset(dataset_config: Any, tokenizer: PreTrainedTokenizerBase, split: str) -> Any:
    """Load the user's own files."""
    return _load(local_split(dataset_config, split), tokenizer)


def get_custom_dataset(dataset_config: Any, tokenizer: PreTrainedTokenizerBase, split: str) -> Any:
    """Call the user's function of ``file.py`` or ``file.py:function``, as upstream does."""
    return custom.call(dataset_config, tokenizer, split)


def get_data_collator(dataset_processer: PreTrainedTokenizerBase, dataset_config: Any) -> Any:
    """Return the collator that the user's ``get_data_collator`` makes, or None without one."""
    return custom.collator(dataset_config, dataset_processer)


def get_llamaguard_toxicchat_dataset(
    dataset_config: Any, tokenizer: PreTrainedTokenizerBase, split: str
) -> Any:
    """Format ToxicChat's conversations for Llama Guard with upstream's formatter."""
    formatter = load("datasets.toxicchat_dataset").get_llamaguard_toxicchat_dataset
    return formatter(dataset_config, tokenizer, split)


def load_toxicchat(dataset_config: Any, split: str) -> Any:
    """Return ToxicChat's rows as a ``datasets.Dataset``; upstream's formatter calls this."""
    import datasets

    return datasets.Dataset.from_list(list(toxicchat.rows(dataset_config, split)))


def _load(split: Split, tokenizer: PreTrainedTokenizerBase) -> Any:
    return load_split(split, tokenizer).rows
