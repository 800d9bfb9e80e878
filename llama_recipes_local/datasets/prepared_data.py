"""A run's data after it is tokenised and audited."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llama_recipes_local.configs.protocols import Part
from llama_recipes_local.data import audit
from llama_recipes_local.data.audit import SplitAudit
from llama_recipes_local.data.mixing import SourceShare, share_table
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.datasets.prompt_template import PromptTemplate, save_prompt_template
from llama_recipes_local.models.new_tokens import NewTokens
from llama_recipes_local.run.record import AUDIT_FILE

# what a run prints and records for ``main``'s "train" and "test"
PART_NAMES: dict[Part, str] = {"train": "train", "test": "validation"}


@dataclass
class RunData:
    """Both splits of a run's data set.

    Attributes:
        splits: what ``get_preprocessed_dataset`` returns, by "train" and "test".
        audits: their audits, by "train" and "validation"; a split that was not tokenised in advance
            has none.
        fingerprints: hashes of their content, by "train" and "validation"; a stream has none.
        tokenizer: a hash of the tokenizer.
        prompt_template: what generation puts a user's text into; None if unknown.
        new_tokens: the tokens that the model was not trained on; None without any.
        example: a text to try the trained model with.
        shares: of a mixture, each source's part of an epoch, by name.
        sources: of a mixture, the audits of each source, by name.
    """

    splits: dict[Part, Any] = field(default_factory=dict)
    audits: dict[str, SplitAudit] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    tokenizer: str = ""
    prompt_template: PromptTemplate | None = None
    new_tokens: NewTokens | None = None
    example: str = ""
    shares: dict[str, SourceShare] = field(default_factory=dict)
    sources: dict[str, dict[str, SplitAudit]] = field(default_factory=dict)

    @property
    def shared_rows(self) -> int:
        """The validation rows that are training rows too."""
        rows = [split for split in self.splits.values() if isinstance(split, TokenRows)]
        return audit.shared_rows(*rows) if len(rows) == len(PART_NAMES) else 0

    def __str__(self) -> str:
        if not self.audits:
            return "not audited: the data is read during training"
        table = audit.table(self.audits, self.shared_rows)
        return f"{table}\n\n{share_table(self.shares)}" if self.shares else table

    def save(self, folder: Path) -> None:
        """Write the audit and the prompt template into a folder."""
        mixture = {
            name: {**asdict(share), **{part: asdict(a) for part, a in self.sources[name].items()}}
            for name, share in self.shares.items()
        }
        path = folder / AUDIT_FILE
        audit.save_audit(self.audits, self.shared_rows, path, mixture)
        save_prompt_template(self.prompt_template, folder)
