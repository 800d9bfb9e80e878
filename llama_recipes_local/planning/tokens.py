"""The number of tokens in an epoch, estimated from the sizes of the data's files."""

from pathlib import Path

from llama_recipes_local.configs.protocols import DatasetConfig, Part
from llama_recipes_local.datasets.base import split_name
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import UsageError
from llama_recipes_local.run import Run

BYTES_A_TOKEN = 4
_TEXTS = (".csv", ".tsv", ".json", ".jsonl", ".txt")


def bytes_of(config: DatasetConfig, part: Part = "train") -> int | None:
    """Return the bytes of the files of a data set's part; None if some are not plain text."""
    files = _files(config, part)
    if not files or any(path.suffix not in _TEXTS for path in files):
        return None
    return sum(path.stat().st_size for path in files)


def epoch_bytes(run: Run) -> int | None:
    """Return the bytes of an epoch's rows; None if some files are not plain text.

    A mixture repeats all sources but one, so that each has its share.
    """
    sizes = [(bytes_of(source.config), source.weight) for source in run.sources]
    weights = sum(weight for _, weight in sizes)
    shared = [size * weights / weight for size, weight in sizes if size is not None]
    return round(max(shared)) if shared and len(shared) == len(sizes) else None


def held_out_tokens(run: Run) -> int | None:
    """Return the tokens of the part that a run validates on; None if they are not known."""
    sizes = [bytes_of(source.config, "test") for source in run.sources]
    known = [size for size in sizes if size is not None]
    return sum(known) // BYTES_A_TOKEN if known and len(known) == len(sizes) else None


def _files(config: DatasetConfig, part: Part) -> list[Path]:
    """Return the files of a data set's part; none if they are not found."""
    declared = DATASETS.get(config.dataset)
    if declared is None or declared.split is None:
        return []
    try:
        return list(declared.split(config, split_name(config, part)).files)
    except (UsageError, OSError):
        return []
