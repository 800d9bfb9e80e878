"""SAMSum: dialogues and their summaries, from the corpus's archive or from files of its splits."""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from llama_recipes_local._upstream import load_alone
from llama_recipes_local.datasets.base import Dataset, PromptFormatter, Split
from llama_recipes_local.datasets.locating import (
    EVERY_RECORD,
    data_files_in,
    one_set,
    read_all,
    what_is_there,
)
from llama_recipes_local.errors import refusal
from llama_recipes_local.fields import FOLDER, TEXT, Resume
from llama_recipes_local.messages import join_names
from llama_recipes_local.records.source import Source, is_seven_zip
from llama_recipes_local.storage import data_root

if TYPE_CHECKING:
    from llama_recipes_local._vendor.llama_recipes.configs.datasets import (
        samsum_dataset as _upstreams,
    )
else:
    _upstreams = load_alone("configs.datasets").samsum_dataset

PROMPT = "Summarize this dialog:\n{}\n---\nSummary:\n"
COLUMNS = ("dialogue", "summary")
FORMATTER = PromptFormatter(PROMPT, *COLUMNS)
ARCHIVE = "corpus.7z"
# By split, the words that the names of its files begin with; the first is the corpus's own.
WORDS = {
    "train": ("train",),
    "validation": ("val", "validation", "valid", "dev"),
    "test": ("test",),
}
ACCEPTED = (
    f"read are {ARCHIVE}; or train.json, val.json and test.json; or parquet, jsonl, json or csv "
    "files named train*, val* or validation*, and test*"
)
FIX = "put one of these there, or name another folder: --samsum_dataset.data_path=DIR"


@dataclass
class samsum_dataset(_upstreams):
    """SAMSum: dialogues and their summaries; nothing remote is run, so nothing is trusted."""

    dataset: Annotated[str, TEXT, Resume.FREE] = _upstreams.dataset
    train_split: Annotated[str, TEXT, Resume.DATA] = _upstreams.train_split
    test_split: Annotated[str, TEXT, Resume.DATA] = _upstreams.test_split
    trust_remote_code: Annotated[bool, Resume.FREE] = _upstreams.trust_remote_code

    data_path: Annotated[str, FOLDER, Resume.DATA] = "datasets/samsum/"
    """Folder with ``corpus.7z``, or with json, jsonl, csv or parquet files named ``train*``,
    ``val*`` and ``test*``; in it or in its ``data/``. Also the archive itself."""

    data_root: Annotated[str, FOLDER, Resume.FREE] = ""


def split(config: samsum_dataset, name: str) -> Split:
    """Return the split "train", "validation" or "test".

    Raises:
        UsageError: if it is not there, or there twice.
    """
    sources = find(config, name)
    files = tuple(source.path for source in sources)
    part = sources[0].member or EVERY_RECORD
    note = f"--> samsum_dataset: {name} is read from {join_names(map(str, sources))}"
    return Split(files, part, partial(read_all, sources, COLUMNS), FORMATTER, (note,))


def find(config: samsum_dataset, name: str) -> tuple[Source, ...]:
    """Return a split's files: rather its own than the archive, rather in ``data/`` than elsewhere.

    Raises:
        UsageError: as ``split``.
    """
    root = data_root.resolve(config.data_path, config.data_root)
    words = next((words for words in WORDS.values() if name in words), (name,))
    member = f"{words[0]}.json"
    if root.is_file() and is_seven_zip(root):
        return (Source(root, member),)
    folders = [root, root / "data"]
    for folder in reversed(folders):
        own = _files_of(folder, words)
        if own:
            return tuple(map(Source, own))
    archives = [folder / ARCHIVE for folder in folders if (folder / ARCHIVE).is_file()]
    if archives:
        return (Source(archives[-1], member),)
    why = f"{what_is_there(folders)}; {ACCEPTED}"
    raise refusal(f"no {name} split of SAMSum in {root}", why, FIX)


def _files_of(folder: Path, words: tuple[str, ...]) -> list[Path]:
    """Return a split's files in a folder; a file with the corpus's own name takes precedence."""
    pattern = re.compile(rf"(samsum[-_.])?({'|'.join(words)})([-_.0-9].*)", re.IGNORECASE)
    found = [path for path in data_files_in(folder) if pattern.fullmatch(path.name)]
    corpus = folder / f"{words[0]}.json"
    if corpus in found:
        return [corpus]
    return one_set(found, f"the {words[-1]} split of SAMSum", FIX)


DATASET = Dataset(
    config=samsum_dataset,
    split=split,
    flag="--samsum_dataset.data_path=DIR",
    prompt=PROMPT,
    metrics=("rouge",),
)
