"""The stages of a rehearsal as a file, passed from one process to the other."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE = "rehearsal.json"
FAILURE = "failure.txt"
"""Why it failed, in the same folder."""


@dataclass(frozen=True)
class Script:
    """A rehearsal.

    Attributes:
        folder: where everything is written.
        model: the user's folder of the model.
        tokenizer: that of the tokenizer.
        flags: of the small run.
        ranks: how many train; 0 is a process that is no rank.
        prompt: a text to generate with.
        adapter: whether an adapter is trained.
        mergeable: whether it can be merged.
        sharded: whether a whole model is saved in shards, which ``convert`` joins.
    """

    folder: str
    model: str
    tokenizer: str
    flags: dict[str, Any]
    ranks: int
    prompt: str
    adapter: bool
    mergeable: bool
    sharded: bool

    def write(self) -> Path:
        """Write it into its folder; return the file."""
        path = Path(self.folder, FILE)
        path.write_text(json.dumps(asdict(self)), "utf-8")
        return path


def read_script(path: Path) -> Script:
    """Return the script that a file has."""
    return Script(**json.loads(path.read_text("utf-8")))
