"""The grammar data set: wrong sentences and their corrections, one file a split."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from llama_recipes_local._upstream import load_alone
from llama_recipes_local.datasets.base import Dataset, PromptFormatter, Split
from llama_recipes_local.datasets.locating import EVERY_RECORD
from llama_recipes_local.errors import UsageError
from llama_recipes_local.fields import FOLDER, TEXT, Resume
from llama_recipes_local.messages import missing_path
from llama_recipes_local.program import command
from llama_recipes_local.records.any_format import format_of, records
from llama_recipes_local.storage import data_root

if TYPE_CHECKING:
    from llama_recipes_local._vendor.llama_recipes.configs.datasets import (
        grammar_dataset as _upstreams,
    )
else:
    _upstreams = load_alone("configs.datasets").grammar_dataset

PROMPT = "Correct this to standard English: {}\n---\nCorrected: "
COLUMNS = ("input", "target")
FORMATTER = PromptFormatter(PROMPT, *COLUMNS)


@dataclass
class grammar_dataset(_upstreams):
    """Grammar correction: two CSV files with the columns ``input`` and ``target``."""

    dataset: Annotated[str, TEXT, Resume.FREE] = _upstreams.dataset

    train_split: Annotated[str, FOLDER, Resume.DATA] = "datasets/grammar/gtrain_10k.csv"
    """The file to train on."""

    test_split: Annotated[str, FOLDER, Resume.DATA] = "datasets/grammar/grammar_validation.csv"
    """The file to evaluate on."""

    data_root: Annotated[str, FOLDER, Resume.FREE] = ""


def split(config: grammar_dataset, name: str) -> Split:
    """Return a split; ``name`` is its file, which is CSV unless its name says otherwise.

    Raises:
        UsageError: if there is no such file.
    """
    path = data_root.resolve(name, config.data_root)
    if not path.exists():
        words = ["prepare", "grammar"]
        # the command would not know of a data root that a flag gives
        if data_root.data_root(config.data_root) != Path.cwd():
            words += ["--out", str(path.parent)]
        raise UsageError([missing_path(path, f"make the files: {command(*words)}")])
    form = format_of(path.name) or "csv"
    return Split((path,), EVERY_RECORD, partial(records, path, COLUMNS, form), FORMATTER)


DATASET = Dataset(
    config=grammar_dataset,
    split=split,
    flag="--grammar_dataset.{part}_split=FILE",
    prompt=PROMPT,
    example="She go to school yesterday.",
    metrics=("gleu",),
)
