"""The number of tokens in an epoch, estimated from the sizes of the data's files."""

from typing import Protocol

from llama_recipes_local.configs.protocols import DatasetConfig, Part
from llama_recipes_local.datasets.base import Split, split_name
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import UsageError
from llama_recipes_local.run import Run

BYTES_A_TOKEN = 4
_TEXTS = (".csv", ".tsv", ".json", ".jsonl", ".txt")


class DataSize(Protocol):
    """How much data there is, as an audit or an estimate has it."""

    @property
    def rows(self) -> int:
        """Rows that are trained or validated on."""

    @property
    def tokens(self) -> int:
        """Their tokens."""

    @property
    def label_tokens(self) -> int:
        """Those that are predicted."""


def bytes_of(config: DatasetConfig, part: Part = "train") -> int | None:
    """Return about how many bytes of text a data set's part has; None if that is not known."""
    found = _split(config, part)
    if found is None or found.share is None:
        return None
    if any(path.suffix not in _TEXTS for path in found.files):
        return None
    return round(found.share * sum(path.stat().st_size for path in found.files))


def epoch_bytes(run: Run) -> int | None:
    """Return the bytes of an epoch's rows; None if those of a source are not known.

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


def _split(config: DatasetConfig, part: Part) -> Split | None:
    """Return a data set's part; None if its files are not found, or other code reads them."""
    declared = DATASETS.get(config.dataset)
    if declared is None or declared.split is None:
        return None
    try:
        return declared.split(config, split_name(config, part))
    except (UsageError, OSError):
        return None
