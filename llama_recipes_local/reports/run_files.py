"""What a run left in its folder: its settings, its steps and validations, its data's table."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_recipes_local.errors import Problem, door, refuse
from llama_recipes_local.messages import missing_path
from llama_recipes_local.run.logged_metrics import EVALUATIONS_FILE, METRICS_FILE, step_of
from llama_recipes_local.run.record import AUDIT_FILE, BASE_RECORD, SAMPLES_FILE, SavedRun

Row = dict[str, float]
SFT_RECORD = "sft_config.json"
_EVALUATIONS = "evaluation*.json"
MOST_ROWS = 20_000
"""Lines of a file that are read: of more, evenly spaced ones and the last."""
_TRL_NAMES = {"learning_rate": "lr", "eval_loss": "loss"}
"""What TRL's trainer logs, and the names here."""


@dataclass(frozen=True)
class Rows:
    """Lines of a file of numbers, by step.

    Attributes:
        rows: the lines that were read.
        lines: how many the file has.
        every: every how many lines one was read; 1 if all were.
        damaged: how many of those that were read hold no numbers of a step.
        again: how many are replaced by a later line of the same step, which a resumed run wrote.
    """

    rows: list[Row]
    lines: int = 0
    every: int = 1
    damaged: int = 0
    again: int = 0


@dataclass(frozen=True)
class RunFiles:
    """A run as its folder has it.

    Attributes:
        name: what the page calls it.
        folder: of the run.
        record: its settings.
        sft: those of a run of ``sft.py``; empty for others.
        logged: a row for each logged optimiser step.
        validated: a row for each validation.
        audit: what was found of each part of the data; empty if it was not recorded.
        answers: those of before and after training; empty if none were asked for.
        evaluations: what ``evaluate`` measured of it, by the name of the file in its folder.
        base: what is known of the weights that an adapter was trained on.
    """

    name: str
    folder: Path
    record: SavedRun
    sft: dict[str, Any]
    logged: Rows
    validated: Rows
    audit: dict[str, Any]
    answers: dict[str, Any]
    evaluations: dict[str, dict[str, Any]]
    base: dict[str, Any]

    @property
    def steps(self) -> list[Row]:
        """A row for each optimiser step that was read."""
        return self.logged.rows

    @property
    def validations(self) -> list[Row]:
        """A row for each validation that was read."""
        return self.validated.rows


def read_runs(folders: list[Path]) -> list[RunFiles]:
    """Read the folders of runs.

    Raises:
        UsageError: if one is missing or holds no run.
    """
    refuse([problem for folder in folders if (problem := _no_run(folder))])
    names = _names(folders)
    return [_read(folder, name) for folder, name in zip(folders, names, strict=True)]


def _no_run(folder: Path) -> Problem | None:
    fix = "give the --output_dir of a run"
    if not folder.is_dir():
        return missing_path(folder, fix)
    if (folder / METRICS_FILE).is_file():
        return None
    if (folder.resolve().parent / METRICS_FILE).is_file():
        why = f"{METRICS_FILE} is in the folder above, of the run that wrote this one"
        return Problem(f"no run in {folder}", why, f"give {folder.resolve().parent}")
    why = f"it has no {METRICS_FILE}, which a run writes from its first step on"
    return Problem(f"no run in {folder}", why, fix)


def _names(folders: list[Path]) -> list[str]:
    """Return the folders' names, or their whole paths where two have the same name."""
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) == len(names):
        return names
    return [str(folder) for folder in folders]


def _read(folder: Path, name: str) -> RunFiles:
    return RunFiles(
        name=name,
        folder=folder,
        record=SavedRun(folder),
        sft=_json_object(folder / SFT_RECORD, "the record of a run"),
        logged=_rows(folder / METRICS_FILE),
        validated=_rows(folder / EVALUATIONS_FILE),
        audit=_json_object(folder / AUDIT_FILE, "the table of a run's data"),
        answers=_json_object(folder / SAMPLES_FILE, "a run's sample answers"),
        evaluations={
            path.name: _json_object(path, "a result of evaluate")
            for path in sorted(folder.glob(_EVALUATIONS))
        },
        base=_json_object(folder / BASE_RECORD, "the record of an adapter's base model"),
    )


def _json_object(path: Path, what: str) -> dict[str, Any]:
    """Return the content of a file; empty if there is none."""
    if not path.is_file():
        return {}
    with door(f"{path} is not {what}", "copy it again, or remove it"):
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
    return content


def _rows(path: Path) -> Rows:
    """Return the rows of a file of JSON lines by step; of each step its last line."""
    if not path.is_file():
        return Rows([])
    with path.open("rb") as file:
        lines = sum(1 for _ in file)
    every = -(-lines // MOST_ROWS) or 1
    found = list(_numbers(path, every, lines))
    rows = {row["step"]: row for row in found if row}
    damaged = found.count({})
    ordered = [rows[step] for step in sorted(rows)]
    return Rows(ordered, lines, every, damaged, len(found) - damaged - len(rows))


def _numbers(path: Path, every: int, lines: int) -> Iterator[Row]:
    """Read every ``every``-th line and the last one as numbers; {} for a damaged line."""
    with path.open("rb") as file:
        for place, line in enumerate(file, 1):
            if place % every and place != lines:
                continue
            if step_of(line) is None:
                yield {}
                continue
            content = json.loads(line.decode("utf-8"))
            numbers = {
                _TRL_NAMES.get(name, name): plain_number(each) for name, each in content.items()
            }
            row = {name: value for name, value in numbers.items() if value is not None}
            yield row if "step" in row else {}


def plain_number(value: object) -> float | None:
    """Return a JSON value if it is a number, and small enough for a float if it is an integer."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if isinstance(value, float) or abs(value) <= sys.float_info.max else None


def tokens_by_step(rows: Rows) -> dict[float, float]:
    """Return the tokens computed up to each step; empty where a run did not record them.

    If lines were skipped, each line that was read also counts for those skipped.
    """
    total, found = 0.0, {}
    for row in rows.rows:
        if "num_tokens" in row:  # TRL's counts all so far
            total = row["num_tokens"]
        elif "tokens" in row:
            total += row["tokens"] * rows.every
        else:
            return {}
        found[row["step"]] = total
    return found
