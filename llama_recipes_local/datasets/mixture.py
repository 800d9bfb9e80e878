"""``mixed_dataset``: several data sets in shares of the loss's tokens, ``--dataset a:2,b:1``.

The sources are data sets of the registry or the user's own files; ``mixed_sources`` finds them, and
``run_data`` prepares each as if it was alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from llama_recipes_local.datasets.base import Dataset
from llama_recipes_local.errors import refusal
from llama_recipes_local.fields import FOLDER, TEXT, Resume

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MIXTURE_FLAG = "--dataset NAME|PATH:WEIGHT,NAME|PATH:WEIGHT"


class _Splits:
    """The sources have splits of their own; without a type these are no flags."""

    train_split = "train"
    test_split = "validation"


@dataclass
class mixed_dataset(_Splits):
    """Several data sets in shares; ``--dataset a:2,b:1`` is short for it."""

    dataset: Annotated[str, TEXT, Resume.FREE] = "mixed_dataset"
    sources: Annotated[str, TEXT, Resume.DATA] = ""
    """What is mixed: "a:0.7,b:0.3", names of data sets or paths of your own files, each with its
    weight, which is its share of the label tokens of an epoch. Each has its own flags
    (``--a.FIELD VALUE``); ``local_dataset``'s hold for all paths."""
    data_root: Annotated[str, FOLDER, Resume.FREE] = ""


def split_sources(text: str) -> list[tuple[str, str | None]]:
    """Return the names or paths in a mixture, each with its weight as written; None without one."""
    found: list[tuple[str, str | None]] = []
    for item in text.split(","):
        name, colon, weight = item.strip().rpartition(":")
        has_weight = bool(colon) and os.sep not in weight
        found.append((name, weight) if has_weight else (item.strip(), None))
    return found


def _check(config: mixed_dataset, name: str) -> None:
    """Refuse to use a mixture as if it was one data set: each source is checked and loaded."""
    raise refusal(
        "mixed_dataset has no files of its own",
        "its sources are prepared by a run, each with its own configuration",
        "call finetuning.main(dataset=...), or load each source and join them",
    )


def _load(config: mixed_dataset, tokenizer: PreTrainedTokenizerBase, split: str) -> Any:
    return _check(config, split)


DATASET = Dataset(config=mixed_dataset, load=_load, check=_check)
