"""What a run left in its folder: its settings, its steps and validations, its data's table."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_recipes_local.datasets.run_data import AUDIT_FILE
from llama_recipes_local.errors import Problem, door, refuse
from llama_recipes_local.messages import missing_path
from llama_recipes_local.run.record import SavedRun
from llama_recipes_local.training.loggers import EVALUATIONS_FILE, METRICS_FILE, step_of

Row = dict[str, float]


@dataclass(frozen=True)
class RunFiles:
    """A run as its folder has it.

    Attributes:
        name: what the page calls it.
        folder: of the run.
        record: its settings.
        steps: a row for each logged optimiser step.
        validations: a row for each validation.
        audit: what was found of each part of the data; empty if it was not recorded.
        left_out: lines of both files that are damaged.
    """

    name: str
    folder: Path
    record: SavedRun
    steps: list[Row]
    validations: list[Row]
    audit: dict[str, Any]
    left_out: int


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
    steps, bad_steps = _rows(folder / METRICS_FILE)
    validations, bad_validations = _rows(folder / EVALUATIONS_FILE)
    audit: dict[str, Any] = {}
    if (folder / AUDIT_FILE).is_file():
        with door(f"{folder / AUDIT_FILE} is not the table of a run's data", "copy it again"):
            audit = json.loads((folder / AUDIT_FILE).read_text("utf-8"))
            if not isinstance(audit, dict):
                raise ValueError("it is not a JSON object")
    left_out = bad_steps + bad_validations
    return RunFiles(name, folder, SavedRun(folder), steps, validations, audit, left_out)


def _rows(path: Path) -> tuple[list[Row], int]:
    """Return the rows of a file of JSON lines by step, and how many lines are damaged."""
    if not path.is_file():
        return [], 0
    lines = path.read_bytes().splitlines()
    rows = list(_numbers(lines))
    return sorted(rows, key=lambda row: row["step"]), len(lines) - len(rows)


def _numbers(lines: list[bytes]) -> Iterator[Row]:
    """Read lines that have a step, and of these what is a number."""
    for line in lines:
        if step_of(line) is not None:
            content = json.loads(line.decode("utf-8"))
            found = {name: plain_number(value) for name, value in content.items()}
            if found["step"] is not None:
                yield {name: value for name, value in found.items() if value is not None}


def plain_number(value: object) -> float | None:
    """Return a JSON value if it is a number, and small enough for a float if it is an integer."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if isinstance(value, float) or abs(value) <= sys.float_info.max else None
