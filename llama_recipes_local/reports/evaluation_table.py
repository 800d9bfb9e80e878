"""The table of what ``evaluate`` measured of a run: data sets, benchmarks, forgetting."""

from typing import Any

from llama_recipes_local.reports.html_page import table
from llama_recipes_local.reports.line_chart import number
from llama_recipes_local.reports.run_files import RunFiles, plain_number


def evaluation_table(run: RunFiles) -> str:
    """Return a run's results that lie in its folder; empty if there are none."""
    rows = {
        f"{file}, {_measured(content)}, {name}": _values(metric)
        for file, content in run.evaluations.items()
        for name, metric in _object(content.get("metrics")).items()
        if plain_number(_object(metric).get("value")) is not None
    }
    columns = ["", "value", "interval of 95% or standard error", "before training"]
    return table(f"Evaluations of {run.name}", columns, rows) if rows else ""


def _measured(content: dict[str, Any]) -> str:
    """Return the benchmark, or the data set."""
    about = _object(content.get("about"))
    return str(about.get("benchmark") or _object(about.get("train_config")).get("dataset", ""))


def _values(metric: dict[str, Any]) -> list[str]:
    value, low, high, error, before = (
        number(found, 5) if (found := plain_number(metric.get(name))) is not None else ""
        for name in ("value", "low", "high", "stderr", "before")
    )
    uncertain = f"{low} to {high}" if low and high else error and f"± {error}"
    return [value, uncertain, before]


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
