"""The grammar data set: the two CSV files that upstream carries, put where training looks."""

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
CARRIED_FOLDER = VENDORED_DIR / "datasets" / "grammar_dataset"


@dataclass(frozen=True)
class PreparedFile:
    """A file of the data set in its place.

    Attributes:
        path: where it is, absolute.
        rows: its rows, the header apart.
        written: whether it was put there now; False if it was there before.
    """

    path: Path
    rows: int
    written: bool

    def __str__(self) -> str:
        did = "wrote it" if self.written else "it was there and is left as it is"
        return f"{self.path}: {self.rows} rows, {did}"


def carried_file(name: str) -> Path:
    """Return a file of the data set in the copy of upstream.

    Raises:
        UsageError: if the copy is missing or lacks the file.
    """
    path = CARRIED_FOLDER / name
    if not path.is_file():
        raise refusal(
            f"there is no {path}",
            "the grammar data set comes with the copy of llama-recipes",
            f"make the copy: {MAKE_COMMAND}",
        )
    return path


def prepare_grammar(folder: Path) -> list[PreparedFile]:
    """Put the training and the validation file into ``folder``; a file that is there stays.

    Args:
        folder: absolute; made if it is missing.

    Returns:
        The two files.

    Raises:
        UsageError: if the copy of upstream lacks the data, or ``folder`` is a file.
    """
    sources = [carried_file(name) for name in (TRAINING_FILE, VALIDATION_FILE)]
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
    # a file of the user's may be in any encoding, and a count needs none
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return sum(1 for _ in csv.DictReader(file))
