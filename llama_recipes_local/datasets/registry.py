"""Every data set that ``--dataset`` names; a new one is a module and its line here."""

from typing import Any

from llama_recipes_local.datasets import (
    alpaca,
    custom,
    grammar,
    guanaco,
    local,
    mixture,
    samsum,
    toxicchat,
)
from llama_recipes_local.datasets.base import Dataset

DATASETS: dict[str, Dataset[Any]] = {
    dataset.name: dataset
    for dataset in (
        alpaca.DATASET,
        custom.DATASET,
        grammar.DATASET,
        guanaco.DATASET,
        toxicchat.DATASET,
        local.DATASET,
        mixture.DATASET,
        samsum.DATASET,
    )
}

NAMING = f"--dataset NAME, one of {', '.join(DATASETS)}, or --dataset PATH, your own files"
"""How data is named, for messages."""
