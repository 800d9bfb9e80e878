"""A run's data, tokenised and audited before any weight is loaded."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.data import audit
from llama_recipes_local.data.audit import Counts, SplitAudit, audit_split
from llama_recipes_local.data.tokens import TokenRows
from llama_recipes_local.datasets.loading import Loaded, load_samples, load_split
from llama_recipes_local.datasets.table import SPLITS
from llama_recipes_local.errors import Problem, UsageError
from llama_recipes_local.models import AutoTokenizer
from llama_recipes_local.run import Run
from llama_recipes_local.utils.dataset_utils import (
    get_custom_data_collator,
    get_preprocessed_dataset,
)

AUDIT_FILE = "data_audit.json"
# main's words for the two splits, and what they are for
PARTS = {"train": "train", "test": "validation"}


@dataclass
class RunData:
    """Both splits of a run's data set.

    Attributes:
        splits: what ``get_preprocessed_dataset`` returns, by "train" and "test".
        audits: what was found in them, by "train" and "validation"; a split that was not
            tokenised ahead has none.
    """

    splits: dict[str, Any] = field(default_factory=dict)
    audits: dict[str, SplitAudit] = field(default_factory=dict)

    @property
    def shared_rows(self) -> int:
        """The validation rows that are training rows too."""
        rows = [split for split in self.splits.values() if isinstance(split, TokenRows)]
        return audit.shared_rows(*rows) if len(rows) == len(PARTS) else 0

    def __str__(self) -> str:
        return audit.table(self.audits, self.shared_rows)

    def save(self, folder: Path) -> None:
        """Write the audit into a folder."""
        audit.save_audit(self.audits, self.shared_rows, folder / AUDIT_FILE)


def prepare_data(run: Run) -> RunData:
    """Tokenise both splits, or find them in the cache, and say what is in them.

    Raises:
        UsageError: if a record cannot be used, or a split has nothing to train or validate on.
    """
    tokenizer = load_tokenizer(run.train)
    data = RunData()
    for part, name in PARTS.items():
        loaded = _load(run, part, tokenizer)
        if isinstance(loaded, Loaded):
            print(f"--> {name} data: {len(loaded.rows):,} rows, {loaded.how}")
            data.splits[part], data.audits[name] = loaded.rows, loaded.audit
        else:
            print(f"--> {name} data: as its function returns it, for its own collator")
            data.splits[part] = loaded
    _refuse_empty(data.audits, run.train)
    return data


def _load(run: Run, part: str, tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return a split as ``Loaded``, or as the user's function made it for a collator of theirs."""
    train = run.train
    if train.dataset in SPLITS:
        split = SPLITS[train.dataset](run.dataset, part)
        return load_split(split, tokenizer, train.context_length, train.data_cache)
    samples = get_preprocessed_dataset(tokenizer, run.dataset, part)
    if train.batching_strategy == "packing" or not get_custom_data_collator(tokenizer, run.dataset):
        return load_samples(samples, train.context_length)
    return samples


def load_tokenizer(train: Any) -> PreTrainedTokenizerBase:
    """Load the tokenizer as ``main`` does."""
    tokenizer = AutoTokenizer.from_pretrained(train.tokenizer_name or train.model_name)
    if not tokenizer.pad_token_id:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return tokenizer


def _refuse_empty(audits: dict[str, SplitAudit], train: Any) -> None:
    needed = [name for name in audits if name == "train" or train.run_validation]
    problems = [
        Problem(
            f"the {name} data of --dataset {train.dataset} has no label to "
            f"{'learn' if name == 'train' else 'be judged by'}",
            _told(audits[name].counts),
            "fill in the responses, or name other data (datasets/README.md)",
        )
        for name in needed
        if not audits[name].label_tokens
    ]
    if problems:
        raise UsageError(problems)


def _told(counts: Counts) -> str:
    return (
        f"of {counts.records} records, {counts.blank} are blank and {counts.without_label} have "
        "no label"
    )
