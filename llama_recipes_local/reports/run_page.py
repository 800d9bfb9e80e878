"""What the page of runs shows: a section for each kind of thing that a run leaves."""

import math

from llama_recipes_local.reports.compared_settings import of_runs, versions_of
from llama_recipes_local.reports.html_page import (
    charts,
    legend,
    note,
    page,
    section,
    table,
)
from llama_recipes_local.reports.line_chart import Line, line_chart, number
from llama_recipes_local.reports.run_files import Row, RunFiles, plain_number
from llama_recipes_local.run.record import CONFIGURATION_FILE

PAGE = "report.html"
_STEPS = {
    "training loss": "loss",
    "learning rate": "lr",
    "gradient norm": "grad_norm",
    "tokens a second": "tokens_per_second",
    "GPU memory, GiB": "memory_gib",
    "seconds since the start": "seconds",
}
_AUDIT = ("rows", "tokens", "label_tokens", "longest", "repeated")


def as_page(runs: list[RunFiles]) -> str:
    """Return the page of runs, side by side if there are several."""
    names = [run.name for run in runs]
    title = names[0] if len(runs) == 1 else f"{len(runs)} runs"
    return page(
        title,
        [
            legend(names) if len(runs) > 1 else note(_state(runs[0])),
            section("Results", table(["", *names], _results(runs)), *map(_damage, runs)),
            section("Validation", charts(_validations(runs))),
            section("Training", charts(_training(runs))),
            section("Data", *(table(*_data(run)) for run in runs if run.audit)),
            section("Settings", table(["", *names], of_runs(runs))),
            section("Versions", table(["", *names], versions_of(runs))),
        ],
    )


def _state(run: RunFiles) -> str:
    if run.record.path is None:  # sft.py's has another record, without whether it ended
        return f"{run.folder}, without {CONFIGURATION_FILE}: its settings are not shown"
    finished = run.record.finished
    return f"{run.folder}, {f'finished {finished}' if finished else 'not finished'}"


def _damage(run: RunFiles) -> str:
    if not run.left_out:
        return ""
    return note(f"{run.name}: {run.left_out} damaged lines of its records are left out")


def _results(runs: list[RunFiles]) -> dict[str, list[str]]:
    """Return the numbers that a reader looks for first: one for each run."""
    rows = {
        "optimiser steps": [_last(run.steps, "step") for run in runs],
        "validation loss, first": [_first(run.validations, "loss") for run in runs],
        "validation loss, last": [_last(run.validations, "loss") for run in runs],
        "validation loss, lowest": [_lowest(run.validations, "loss") for run in runs],
        "training loss, last": [_last(run.steps, "loss") for run in runs],
        "tokens a second, last": [_last(run.steps, "tokens_per_second") for run in runs],
        "GPU memory, GiB": [_last(run.steps, "memory_gib") for run in runs],
        "steps whose loss is not finite": [_not_finite(run.steps, "loss") for run in runs],
        "seconds": [_last(run.steps, "seconds") for run in runs],
    }
    return {name: values for name, values in rows.items() if any(values)}


def _first(rows: list[Row], name: str) -> str:
    values = [row[name] for row in rows if name in row]
    return number(values[0]) if values else ""


def _last(rows: list[Row], name: str) -> str:
    return _first(rows[::-1], name)


def _lowest(rows: list[Row], name: str) -> str:
    values = [row[name] for row in rows if name in row and math.isfinite(row[name])]
    return number(min(values)) if values else ""


def _not_finite(rows: list[Row], name: str) -> str:
    """Return how many values a chart leaves out; empty if none."""
    count = sum(name in row and not math.isfinite(row[name]) for row in rows)
    return number(count) if count else ""


def _training(runs: list[RunFiles]) -> dict[str, str]:
    return {
        title: _chart(title, [run.steps for run in runs], name, runs)
        for title, name in _STEPS.items()
    }


def _validations(runs: list[RunFiles]) -> dict[str, str]:
    """Return a chart for each number that validations have."""
    every = [run.validations for run in runs]
    found = {name: None for rows in every for row in rows for name in row if name != "step"}
    return {name: _chart(name, every, name, runs, dotted=True) for name in found}


def _chart(
    title: str, rows: list[list[Row]], name: str, runs: list[RunFiles], dotted: bool = False
) -> str:
    lines = [
        Line(run.name, [(row["step"], row[name]) for row in own if name in row], colour, dotted)
        for colour, (run, own) in enumerate(zip(runs, rows, strict=True))
    ]
    return line_chart(title, "step", lines)


def _data(run: RunFiles) -> tuple[list[str], dict[str, list[str]]]:
    """Return the columns and rows of a run's data table."""
    parts = {name: part for name, part in run.audit.items() if isinstance(part, dict)}
    rows = {name: [_value(part.get(name)) for part in parts.values()] for name in _AUDIT}
    for kind in ("counts", "endings"):
        found = [part.get(kind) for part in parts.values()]
        each = [counted if isinstance(counted, dict) else {} for counted in found]
        for name in {name: None for counted in each for name in counted}:
            values = [_value(counted.get(name)) for counted in each]
            if any(value not in ("", "0") for value in values):
                rows[f"{kind}: {name}"] = values
    return [run.name, *parts], {name.replace("_", " "): values for name, values in rows.items()}


def _value(value: object) -> str:
    value = plain_number(value)
    return "" if value is None else number(value)
