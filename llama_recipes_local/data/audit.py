"""The audit: what was found in a data set's rows during tokenisation; printed before training."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llama_recipes_local.data.endings import Endings
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.storage.publishing import write_json


@dataclass
class Counts:
    """How many records of one split were used, skipped or changed.

    Attributes:
        records: records read.
        blank: records skipped because the prompt, the response or the text is empty.
        truncated: rows that were longer than the context and lost tokens.
        divided: rows longer than the context that were split into several, all tokens kept.
        without_label: records skipped because none of their tokens is trained.
        bad: records skipped because they are unusable and the user allowed it.
        notes: number of records from which something was left out, or to which something was added,
            by what it is.
    """

    records: int = 0
    blank: int = 0
    truncated: int = 0
    divided: int = 0
    without_label: int = 0
    bad: int = 0
    notes: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Counts") -> None:
        """Add what was found in further records."""
        for name, number in vars(other).items():
            if name != "notes":
                setattr(self, name, getattr(self, name) + number)
        for note, number in other.notes.items():
            self.notes[note] = self.notes.get(note, 0) + number


@dataclass(frozen=True)
class SplitAudit:
    """One split's rows as the model will see them.

    Attributes:
        counts: what became of its records.
        rows: rows to train or validate on.
        tokens: their tokens.
        label_tokens: the tokens that are predicted.
        longest: tokens in the longest row.
        repeated: rows equal to an earlier row.
        endings: how they begin and stop; None if that was not asked.
    """

    counts: Counts
    rows: int
    tokens: int
    label_tokens: int
    longest: int
    repeated: int
    endings: Endings | None = None

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "SplitAudit":
        """Return the audit whose ``asdict`` gave this content."""
        endings = content.get("endings")
        made = {
            "counts": Counts(**content["counts"]),
            "endings": Endings(**endings) if endings else None,
        }
        return cls(**(content | made))


def audit_split(rows: TokenRows, counts: Counts) -> SplitAudit:
    """Return the audit of a split's rows."""
    return SplitAudit(
        counts=counts,
        rows=len(rows),
        tokens=int(rows.lengths.sum(dtype=np.int64)),
        label_tokens=int(rows.label_counts.sum(dtype=np.int64)),
        longest=int(rows.lengths.max(initial=0)),
        repeated=len(rows) - len(np.unique(rows.digests)),
    )


def shared_rows(train: TokenRows, validation: TokenRows) -> int:
    """Count the validation rows that are training rows too."""
    return int(np.isin(validation.digests, train.digests).sum())


def table(audits: dict[str, SplitAudit], shared: int) -> str:
    """Return the audit as text, a column a split; lines that are zero throughout are left out."""
    described = {
        "records read": lambda audit: audit.counts.records,
        "  blank, skipped": lambda audit: audit.counts.blank,
        "  cannot be used, skipped": lambda audit: audit.counts.bad,
        "  without a label, skipped": lambda audit: audit.counts.without_label,
        "  truncated": lambda audit: audit.counts.truncated,
        "  split into several rows": lambda audit: audit.counts.divided,
        "rows": lambda audit: audit.rows,
        "  repeated": lambda audit: audit.repeated,
        "tokens": lambda audit: audit.tokens,
        "label tokens": lambda audit: audit.label_tokens,
        "longest row, tokens": lambda audit: audit.longest,
    }
    lines = [f"{'data':<28}" + "".join(f"{name:>16}" for name in audits)]
    for title, value in described.items():
        numbers = [value(audit) for audit in audits.values()]
        if any(numbers) or not title.startswith(" "):
            lines.append(f"{title:<28}" + "".join(f"{number:>16,}" for number in numbers))
    if shared:
        lines.append(f"{'validation rows that are training rows too':<44}{shared:>16,}")
    return "\n".join([*lines, *_endings(audits), *_notes(audits)])


def describe(counts: Counts) -> str:
    """Return a line about records that are not audited."""
    parts = {
        "blank, skipped": counts.blank,
        "cannot be used, skipped": counts.bad,
        "without a label, skipped": counts.without_label,
        "truncated": counts.truncated,
        "split into several rows": counts.divided,
        **counts.notes,
    }
    found = (f"{number:,} {title}" for title, number in parts.items() if number)
    return ", ".join([f"{counts.records:,} records read", *found])


def _endings(audits: dict[str, SplitAudit]) -> list[str]:
    """Return how many rows stop, and a line about doubled or missing begin tokens."""
    known = [(audit, audit.endings) for audit in audits.values() if audit.endings and audit.rows]
    if not known:
        return []
    shares = ", ".join(f"{endings.stopping / audit.rows:.1%}" for audit, endings in known)
    described = {
        "  begin token doubled": [endings.begin_doubled for _, endings in known],
        "  begin token missing": [endings.begin_missing for _, endings in known],
    }
    lines = [f"rows that end in a token that generation stops at: {shares}"]
    for title, numbers in described.items():
        if any(numbers):
            lines.append(f"{title:<28}" + "".join(f"{number:>16,}" for number in numbers))
    return lines


def _notes(audits: dict[str, SplitAudit]) -> list[str]:
    """Return a line for each thing left out or added, with the number of records."""
    notes = dict.fromkeys(note for audit in audits.values() for note in audit.counts.notes)
    counted = (
        (note, [f"{a.counts.notes.get(note, 0):,} of {name}" for name, a in audits.items()])
        for note in notes
    )
    lines = [f"  {note}: {', '.join(numbers)}" for note, numbers in counted]
    return ["not as in the records:", *lines] if lines else []


def save_audit(
    audits: dict[str, SplitAudit], shared: int, path: Path, mixture: dict[str, Any] | None = None
) -> None:
    """Write the audit as JSON, with the sources of a mixture."""
    content: dict[str, Any] = {name: asdict(audit) for name, audit in audits.items()}
    content["validation_rows_in_training"] = shared
    write_json(path, content | ({"mixture": mixture} if mixture else {}))
