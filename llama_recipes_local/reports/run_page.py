"""The sections of the page of runs, one for each kind of result that a run leaves."""

import math
from collections.abc import Sequence
from pathlib import Path

from llama_recipes_local.errors import UsageError, one_line
from llama_recipes_local.program import command
from llama_recipes_local.reports import compared_settings
from llama_recipes_local.reports.audit_table import audit_table, mixture_table
from llama_recipes_local.reports.evaluation_table import evaluation_table
from llama_recipes_local.reports.html_page import card, cards, charts, folded, note, page, table
from llama_recipes_local.reports.line_chart import number
from llama_recipes_local.reports.run_charts import (
    training_charts,
    validation_charts,
    write_pictures,
)
from llama_recipes_local.reports.run_files import Row, Rows, RunFiles, plain_number, read_runs
from llama_recipes_local.run.logged_metrics import EVALUATIONS_FILE, METRICS_FILE
from llama_recipes_local.run.record import CONFIGURATION_FILE
from llama_recipes_local.screen import clock
from llama_recipes_local.storage.publishing import write_text

PAGE = "report.html"
_NETWORK = "attempts of Python code to reach other machines"


def write_report(runs: Sequence[RunFiles], path: Path) -> None:
    """Write the page of runs, and beside it their charts as SVG and PNG."""
    write_text(path, as_page(runs))
    write_pictures(runs, path)


def report_finished_run(output: Path) -> None:
    """Write the page of a run that has just ended: without it, the run is a success too."""
    try:
        write_report(read_runs([output]), output / PAGE)
    except Exception as error:  # a folder that is full or gone, or files that others changed
        why = one_line(str(error.problems[0].why if isinstance(error, UsageError) else error))
        print(f"--> no {PAGE}: {why}; to write it: {command('report', str(output))}")


def as_page(runs: Sequence[RunFiles]) -> str:
    """Return the page of runs, side by side if there are several."""
    names = [run.name for run in runs]
    several = len(runs) > 1
    title = f"{len(runs)} runs" if several else names[0]
    columns = ["", *names]
    by_step = [*validation_charts(runs), *training_charts(runs)]
    by_tokens = [*validation_charts(runs, True), *training_charts(runs, True)]
    differ, same = compared_settings.of_runs(runs)
    sections = {
        "Results": "".join([table("Results", columns, _results(runs), hidden=True), *_notes(runs)]),
        "Curves": charts(by_step) + folded("By tokens", charts(by_tokens, numbers=False)),
        "Evaluations": "".join(map(evaluation_table, runs)),
        "Answers": "".join(map(_answers, runs)),
        "Data": "".join(
            make(run.name, run.audit) for run in runs for make in (audit_table, mixture_table)
        ),
        "Settings": "".join(
            [
                table("What differs", columns, differ),
                table("Not the defaults", columns, same),
            ]
        ),
        "Versions": table(
            "Versions and hashes", columns, compared_settings.versions_of(runs), hidden=True
        ),
    }
    return page(title, "" if several else _state(runs[0]), sections)


def _state(run: RunFiles) -> str:
    if run.sft:
        return f"{run.folder}, by sft.py"
    if run.record.path is None:
        return f"{run.folder}, without {CONFIGURATION_FILE}: its settings are not shown"
    finished = run.record.finished
    ended = f"finished {finished}" if finished else "not finished"
    return "; ".join([f"{run.folder}, {ended}", *run.record.ending])


def _notes(runs: Sequence[RunFiles]) -> list[str]:
    """Return notes on records of the runs that are not shown."""
    return [
        note(text)
        for run in runs
        for file, rows in ((METRICS_FILE, run.logged), (EVALUATIONS_FILE, run.validated))
        for text in _left_out(f"{run.name}, {file}", rows)
    ]


def _left_out(name: str, rows: Rows) -> list[str]:
    said = []
    if rows.every > 1:
        said.append(f"{name}: of {rows.lines:,} lines, one of {rows.every:,} and the last are read")
    if rows.damaged:
        said.append(f"{name}: {rows.damaged:,} damaged lines are left out")
    if rows.again:
        said.append(f"{name}: {rows.again:,} lines of steps that were done again are left out")
    return said


def _results(runs: Sequence[RunFiles]) -> dict[str, list[str]]:
    """Return the numbers that a reader looks for first: one for each run."""
    rows = {
        "optimiser steps": [_last(run.steps, "step") for run in runs],
        "validation loss, first": [_first(run.validations, "loss") for run in runs],
        "validation loss, last": [_last(run.validations, "loss") for run in runs],
        "validation loss, lowest": [_lowest(run.validations, "loss") for run in runs],
        "perplexity, last": [_last(run.validations, "perplexity") for run in runs],
        **{
            f"perplexity of general texts, {when} training": [_general(run, when) for run in runs]
            for when in ("before", "after")
        },
        "training loss, last": [_last(run.steps, "loss") for run in runs],
        "tokens per second, median": [_median(run.steps, "tokens_per_second") for run in runs],
        "memory, GiB, highest": [_highest(run.steps, "memory_gib") for run in runs],
        "steps whose loss is not finite": [_not_finite(run.steps, "loss") for run in runs],
        "time": [_time(run.steps) for run in runs],
    }
    rows[_NETWORK] = [_network_attempts(run) for run in runs]
    if len(runs) > 1:
        rows["state"] = [_state(run) for run in runs]
    return {name: values for name, values in rows.items() if any(values)}


def _network_attempts(run: RunFiles) -> str:
    found = run.record.fields("network")
    count, names = plain_number(found.get("attempts")), found.get("to")
    if count is None:
        return ""
    return f"{number(count)} {' '.join(map(str, names)) if isinstance(names, list) else ''}".strip()


def _general(run: RunFiles, when: str) -> str:
    """Return what ``--samples`` says of forgetting."""
    found = plain_number(run.answers.get(f"general_perplexity_{when}"))
    return "" if found is None else number(found, 5)


def _first(rows: Sequence[Row], name: str) -> str:
    values = [row[name] for row in rows if name in row]
    return number(values[0], 5) if values else ""


def _last(rows: Sequence[Row], name: str) -> str:
    return _first(rows[::-1], name)


def _finite(rows: Sequence[Row], name: str) -> list[float]:
    return sorted(row[name] for row in rows if name in row and math.isfinite(row[name]))


def _lowest(rows: Sequence[Row], name: str) -> str:
    values = _finite(rows, name)
    return number(values[0], 5) if values else ""


def _highest(rows: Sequence[Row], name: str) -> str:
    values = _finite(rows, name)
    return number(values[-1]) if values else ""


def _median(rows: Sequence[Row], name: str) -> str:
    values = _finite(rows, name)
    return number(values[len(values) // 2]) if values else ""


def _time(rows: Sequence[Row]) -> str:
    seconds = _finite(rows, "seconds")
    return clock(seconds[-1]) if seconds and 0 <= seconds[-1] < 1e9 else ""


def _not_finite(rows: Sequence[Row], name: str) -> str:
    """Return how many values a chart leaves out; empty if none."""
    count = sum(name in row and not math.isfinite(row[name]) for row in rows)
    return number(count) if count else ""


def _answers(run: RunFiles) -> str:
    """Return a run's answers before and after training, as they were saved."""
    found = run.answers.get("answers")
    texts = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    each = [
        card(
            f"Answer {place} of {run.name}",
            {name: _text(answer.get(name)) for name in ("prompt", "before", "after", "reference")},
        )
        for place, answer in enumerate(texts, 1)
    ]
    scores = [plain_number(run.answers.get(f"gleu_{when}")) for when in ("before", "after")]
    counted = plain_number(run.answers.get("scored"))
    gleu = ""
    if counted is not None and None not in scores:
        before, after = (number(score or 0.0) for score in scores)
        gleu = f". GLEU of {number(counted)} answers (0 to 1): {before} before, {after} after"
    about = f"{run.name}, prompts of the validation data, answered before and after training{gleu}"
    return note(about) + cards(each) if each else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) and value else "(nothing)"
