"""ToxicChat's rows, from csv or parquet; upstream's formatter turns them into Llama Guard's tasks.

It is no ``Split``: that formatter takes a whole ``datasets.Dataset`` and gives back tokens.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_recipes_local.datasets.base import text_of
from llama_recipes_local.datasets.locating import one_set, read_all, what_is_there
from llama_recipes_local.errors import refusal
from llama_recipes_local.records import finding
from llama_recipes_local.records.any_format import format_of
from llama_recipes_local.records.checked_values import column_of
from llama_recipes_local.records.source import Source
from llama_recipes_local.storage import data_root

COLUMNS = ("user_input", "model_output", "toxicity", "openai_moderation")
VERSION = "0124"
ACCEPTED = (
    f"read are toxic-chat_annotation_train.csv and toxic-chat_annotation_test.csv (the clone has "
    f"them in data/{VERSION}/), or parquet files with train and test in their paths"
)
FIX = "put them there, or name the folder: --llamaguard_toxicchat_dataset.data_path=DIR"


def find(config: Any, name: str) -> tuple[Source, ...]:
    """Return the files of the split "train" or "test"; of several releases, the one of 0124.

    Raises:
        UsageError: if there is none, or more than one.
    """
    root = data_root.resolve(config.data_path)
    below = finding.without_packed_twins(finding.files_below(root))
    found = [path for path in below if format_of(path.name) and name in _words(path, root)]
    chosen = [path for path in found if VERSION in str(path.relative_to(root))] or found
    if not chosen:
        why = f"{what_is_there([root])}; {ACCEPTED}"
        raise refusal(f"there is no {name} split of ToxicChat in {root}", why, FIX)
    return tuple(map(Source, one_set(chosen, f"the {name} split of ToxicChat", FIX)))


def rows(config: Any, name: str) -> Iterator[dict[str, Any]]:
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
