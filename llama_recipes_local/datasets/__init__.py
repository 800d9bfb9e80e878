"""The data sets that ``--dataset`` names, under upstream's names for the tables."""

from collections.abc import Callable
from typing import Any

from llama_recipes_local._upstream import fall_back
from llama_recipes_local.datasets.sources import (
    SPLITS,
    get_alpaca_dataset,
    get_custom_dataset,
    get_data_collator,
    get_grammar_dataset,
    get_guanaco_dataset,
    get_llamaguard_toxicchat_dataset,
    get_local_dataset,
    get_samsum_dataset,
)

__all__ = ["DATALOADER_COLLATE_FUNC", "DATASET_PREPROC", "SPLITS"]

DATASET_PREPROC: dict[str, Callable[..., Any]] = {
    "alpaca_dataset": get_alpaca_dataset,
    "custom_dataset": get_custom_dataset,
    "grammar_dataset": get_grammar_dataset,
    "guanaco_dataset": get_guanaco_dataset,
    "llamaguard_toxicchat_dataset": get_llamaguard_toxicchat_dataset,
    "local_dataset": get_local_dataset,
    "samsum_dataset": get_samsum_dataset,
}
DATALOADER_COLLATE_FUNC = {"custom_dataset": get_data_collator}

__getattr__ = fall_back("datasets")
