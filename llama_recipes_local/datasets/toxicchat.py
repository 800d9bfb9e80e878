"""ToxicChat's rows, from csv or parquet; upstream's formatter turns them into Llama Guard's tasks.

It is not a ``Split``: that formatter takes a whole ``datasets.Dataset`` and returns tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from llama_recipes_local._upstream import load, load_alone
from llama_recipes_local.datasets.base import Dataset, text_of
from llama_recipes_local.datasets.locating import one_set, read_all, what_is_there
from llama_recipes_local.errors import refusal
from llama_recipes_local.fields import FOLDER, TEXT, Resume
from llama_recipes_local.records import finding
from llama_recipes_local.records.any_format import format_of
from llama_recipes_local.records.checked_values import column_of
from llama_recipes_local.records.source import Source
from llama_recipes_local.storage import data_root

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llama_recipes_local._vendor.llama_recipes.configs.datasets import (
        llamaguard_toxicchat_dataset as _upstreams,
    )
else:
    _upstreams = load_alone("configs.datasets").llamaguard_toxicchat_dataset

COLUMNS = ("user_input", "model_output", "toxicity", "openai_moderation")
VERSION = "0124"
ACCEPTED = (
    f"read are toxic-chat_annotation_train.csv and toxic-chat_annotation_test.csv (the clone has "
    f"them in data/{VERSION}/), or parquet files with train and test in their paths"
)
FIX = "put them there, or name the folder: --llamaguard_toxicchat_dataset.data_path=DIR"


@dataclass
class llamaguard_toxicchat_dataset(_upstreams):
    """ToxicChat for Llama Guard."""

    dataset: Annotated[str, TEXT, Resume.FREE] = _upstreams.dataset
    train_split: Annotated[str, TEXT, Resume.DATA] = _upstreams.train_split
    test_split: Annotated[str, TEXT, Resume.DATA] = _upstreams.test_split

    data_path: Annotated[str, FOLDER, Resume.DATA] = "datasets/toxic-chat/"
    """Folder with toxic-chat's csv or parquet files, in it or below; of two releases, 0124's."""

    data_root: Annotated[str, FOLDER, Resume.FREE] = ""


def find(config: llamaguard_toxicchat_dataset, name: str) -> tuple[Source, ...]:
    """Return the files of the split "train" or "test"; of several releases, the one of 0124.

    Raises:
        UsageError: if there is none, or more than one.
    """
    root = data_root.resolve(config.data_path, config.data_root)
    below = finding.without_compressed_copies(finding.files_below(root))
    found = [path for path in below if format_of(path.name) and name in _words(path, root)]
    chosen = [path for path in found if VERSION in str(path.relative_to(root))] or found
    if not chosen:
        why = f"{what_is_there([root])}; {ACCEPTED}"
        raise refusal(f"no {name} split of ToxicChat in {root}", why, FIX)
    return tuple(map(Source, one_set(chosen, f"the {name} split of ToxicChat", FIX)))


def rows(config: llamaguard_toxicchat_dataset, name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a split as upstream's formatter takes them: ``toxicity`` is 0 or 1.

    Raises:
        UsageError: if the split is not there, or at the first row that cannot be used.
    """
    for record in read_all(find(config, name), COLUMNS):
        where, values = record
        texts = {name: text_of(record, name) for name in COLUMNS if name != "toxicity"}
        toxicity = str(column_of(values, "toxicity", where))
        if toxicity not in ("0", "1"):
            raise refusal(f"'toxicity' in {where} is neither 0 nor 1", f"it is {toxicity:.80}")
        yield texts | {"toxicity": int(toxicity)}


def _words(path: Path, root: Path) -> list[str]:
    return re.split(r"[-._/]", path.relative_to(root).as_posix())


def check(config: llamaguard_toxicchat_dataset, name: str) -> None:
    """Check the first row of a split.

    Raises:
        UsageError: as ``rows``.
    """
    next(rows(config, name))


def tokenise(
    config: llamaguard_toxicchat_dataset, tokenizer: PreTrainedTokenizerBase, name: str
) -> Any:
    """Return a split's samples as upstream's formatter makes them, of ``rows``."""
    formatter = load("datasets.toxicchat_dataset").get_llamaguard_toxicchat_dataset
    return formatter(config, tokenizer, name)


DATASET = Dataset(
    config=llamaguard_toxicchat_dataset,
    load=tokenise,
    check=check,
    flag="--llamaguard_toxicchat_dataset.data_path=DIR",
)
