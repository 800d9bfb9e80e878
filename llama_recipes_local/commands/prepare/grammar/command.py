"""The grammar data set that upstream publishes: two CSV files, copied to where training looks."""

import csv
from dataclasses import dataclass
from pathlib import Path

from llama_recipes_local._upstream import VENDORED_DIR
from llama_recipes_local.errors import refusal
from llama_recipes_local.storage.publishing import published_file
from llama_recipes_local.vendoring import MAKE_COMMAND

DEFAULT_FOLDER = "datasets/grammar"
TRAINING_FILE = "gtrain_10k.csv"
VALIDATION_FILE = "grammar_validation.csv"
PUBLISHED_FOLDER = VENDORED_DIR / "datasets" / "grammar_dataset"


@dataclass(frozen=True)
class PreparedFile:
    """A file of the data set.

    Attributes:
        path: its absolute path.
        rows: the number of rows, without the header.
        written: whether it was written now; False if it existed.
    """

    path: Path
    rows: int
    written: bool

    def __str__(self) -> str:
        did = "written" if self.written else "exists already, unchanged"
        return f"{self.path}: {self.rows} rows, {did}"


def published_data(name: str) -> Path:
    """Return the path of a file of the data set in the copy of upstream.

    Raises:
        UsageError: if the copy or the file is missing.
    """
    path = PUBLISHED_FOLDER / name
    if not path.is_file():
        raise refusal(
            f"{path} is missing",
            "the grammar data set comes with the copy of llama-recipes",
            f"make the copy: {MAKE_COMMAND}",
        )
    return path


def prepare_grammar(folder: Path) -> list[PreparedFile]:
    """Copy the training and the validation file into ``folder``; existing files are kept.

    Args:
        folder: absolute; created if it is missing.

    Returns:
        The two files.

    Raises:
        UsageError: if the data are missing in the copy of upstream, or ``folder`` is a file.
    """
    sources = [published_data(name) for name in (TRAINING_FILE, VALIDATION_FILE)]
    if folder.exists() and not folder.is_dir():
        raise refusal(f"{folder} is a file", "the data set is a folder", "name another: --out DIR")
    folder.mkdir(parents=True, exist_ok=True)
    return [_put(source, folder / source.name) for source in sources]


def _put(source: Path, target: Path) -> PreparedFile:
    written = not target.exists()
    if written:
        with published_file(target) as draft:
            draft.write_bytes(source.read_bytes())
    return PreparedFile(target, _count_rows(target), written)


def _count_rows(path: Path) -> int:
    # the user's file may have any encoding, which does not matter for a count
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return sum(1 for _ in csv.DictReader(file))
