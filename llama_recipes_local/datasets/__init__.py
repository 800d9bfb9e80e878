"""The data sets that ``--dataset`` names: a module each, listed in ``registry``.

Upstream's names are here too: its functions, and its tables of them, which are read from the
registry.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from llama_recipes_local._lazy import lazy_names
from llama_recipes_local._upstream import fall_back
from llama_recipes_local.datasets.base import Dataset
from llama_recipes_local.datasets.registry import DATASETS

if TYPE_CHECKING:
    from llama_recipes_local.datasets.sources import (
        get_alpaca_dataset,
        get_custom_dataset,
        get_data_collator,
        get_grammar_dataset,
        get_llamaguard_toxicchat_dataset,
        get_samsum_dataset,
    )

__all__ = [
    "DATALOADER_COLLATE_FUNC",
    "DATASET_PREPROC",
    "get_alpaca_dataset",
    "get_custom_dataset",
    "get_data_collator",
    "get_grammar_dataset",
    "get_llamaguard_toxicchat_dataset",
    "get_samsum_dataset",
]

_Function = Callable[..., Any]


class _Table(Mapping[str, _Function]):
    """A function of each data set that has one, by the data set's name; made from the registry."""

    def __init__(self, find: Callable[[Dataset[Any]], _Function | None]) -> None:
        self._find = find

    def __getitem__(self, name: str) -> _Function:
        function = self._find(DATASETS[name])
        if function is None:
            raise KeyError(name)
        return function

    def __iter__(self) -> Iterator[str]:
        return (name for name, dataset in DATASETS.items() if self._find(dataset) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _collate_function(dataset: Dataset[Any]) -> _Function | None:
    collator = dataset.collator
    if collator is None:
        return None
    return lambda tokenizer, config: collator(config, tokenizer)


def _load_function(dataset: Dataset[Any]) -> _Function:
    from llama_recipes_local.datasets.sources import load_dataset

    return partial(load_dataset, dataset)


DATASET_PREPROC = _Table(_load_function)
DATALOADER_COLLATE_FUNC = _Table(_collate_function)

__getattr__ = lazy_names(__name__, "sources", __all__, otherwise=fall_back("datasets"))
