"""Upstream's ``configs.datasets``: the configuration of each data set that is registered."""

from typing import Any

from llama_recipes_local.datasets.alpaca import alpaca_dataset
from llama_recipes_local.datasets.custom import custom_dataset
from llama_recipes_local.datasets.grammar import grammar_dataset
from llama_recipes_local.datasets.guanaco import guanaco_dataset
from llama_recipes_local.datasets.local import local_dataset
from llama_recipes_local.datasets.mixture import mixed_dataset
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.datasets.samsum import samsum_dataset
from llama_recipes_local.datasets.toxicchat import llamaguard_toxicchat_dataset

__all__ = [
    "alpaca_dataset",
    "custom_dataset",
    "grammar_dataset",
    "guanaco_dataset",
    "llamaguard_toxicchat_dataset",
    "local_dataset",
    "mixed_dataset",
    "samsum_dataset",
]


def __getattr__(name: str) -> Any:
    """Return the configuration of a data set that was registered since."""
    if name in DATASETS:
        return DATASETS[name].config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
