"""The grammar data set: wrong sentences and their corrections, one file a split."""

import shlex
from functools import partial
from pathlib import Path
from typing import Any

from llama_recipes_local.datasets.base import PromptFormatter, Split
from llama_recipes_local.datasets.locating import EVERY_RECORD
from llama_recipes_local.errors import UsageError
from llama_recipes_local.messages import missing_path
from llama_recipes_local.prompts import PROMPTS
from llama_recipes_local.records.any_format import format_of, records
from llama_recipes_local.storage import data_root

COLUMNS = ("input", "target")
FORMATTER = PromptFormatter(PROMPTS["grammar_dataset"], *COLUMNS)


def split(config: Any, name: str) -> Split:
    """Return a split; ``name`` is its file, which is CSV unless its name says otherwise.

    Raises:
        UsageError: if there is no such file.
    """
    path = data_root.resolve(name)
    if not path.exists():
        fix = "make the files: llama-recipes-local prepare grammar"
        if data_root.data_root() != Path.cwd():  # which the command would not know of
            fix += f" --out {shlex.quote(str(path.parent))}"
        raise UsageError([missing_path(path, fix)])
    form = format_of(path.name) or "csv"
    return Split((path,), EVERY_RECORD, partial(records, path, COLUMNS, form), FORMATTER)
