"""The result of an evaluation: a JSON file from which every measure can be computed again."""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tabulate import tabulate

from llama_recipes_local.answers.measures import Measure
from llama_recipes_local.commands.evaluate.metrics import (
    BENCHMARK_METRICS,
    METRICS,
    Answer,
    Document,
    LossMetric,
)
from llama_recipes_local.errors import UsageError, door
from llama_recipes_local.messages import missing_path
from llama_recipes_local.program import command
from llama_recipes_local.storage.publishing import write_json

ROUNDING = 1e-3
"""How far sums of the same losses may differ by their order, in bfloat16 too; the perplexity of
large losses differs most."""


@dataclass
class Result:
    """What an evaluation found.

    Attributes:
        about: what was measured, on which data, with which versions.
        asked: the names of the metrics.
        metrics: by name, ``value`` and its confidence interval from ``low`` to ``high``, or of a
            benchmark its standard error ``stderr``.
        documents: each document's loss.
        answers: each prompt's answer.
        parts: of a benchmark each metric's score of each group and subject.
    """

    about: dict[str, Any]
    asked: list[str]
    metrics: dict[str, dict[str, float | None]] = field(default_factory=dict)
    documents: list[Document] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    parts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def measures(self) -> list[Measure]:
        """Return the measures of the metrics, computed from the saved items."""
        found: list[Measure] = []
        for name, metric in (METRICS | BENCHMARK_METRICS).items():
            if name not in self.asked:
                continue
            if isinstance(metric, LossMetric):
                found += metric.measures(self.documents)
            else:
                found += metric.measures(self.answers)
        return found

    def value(self, measure: Measure) -> float:
        """Return a measure's value as it was printed: a loss is summed as training sums it.

        Raises:
            ValueError: if it is not what the saved items give, but for the order of a sum.
        """
        computed = measure.of_all()
        value = self.metrics.get(measure.name, {}).get("value")
        if value is None:
            return computed
        if not math.isclose(value, computed, rel_tol=ROUNDING, abs_tol=ROUNDING):
            raise ValueError(f"{measure.name} is {value}, but its items give {computed}")
        return value

    def save(self, path: Path) -> None:
        """Write the result, whole or not at all."""
        write_json(path, asdict(self), indent=1)


_FIELDS = {each.name for each in fields(Result)}
_NEEDED = {"about", "asked"}


def _what_it_is(content: object) -> str:
    """Return what JSON is there instead of a result."""
    if not isinstance(content, dict):
        kinds = {list: "a list", str: "a text", type(None): "null"}
        return f"it is {kinds.get(type(content), 'a number or a truth value')}"
    names = ", ".join(sorted(content)[:4]) or "nothing"
    return f"it is a JSON object with {names}{', ...' * (len(content) > 4)}"


def table(rows: list[list[str]], headers: list[str]) -> str:
    """Return a table; numbers are printed as they are given."""
    alignment = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers=headers, disable_numparse=True, colalign=alignment)


def read_result(path: Path) -> Result:
    """Read a result.

    Raises:
        UsageError: if the file is not one.
    """
    fix = f"name two files that `{command('evaluate', '--out', 'FILE')}` wrote"
    if not path.exists():
        raise UsageError([missing_path(path.absolute(), fix)])
    with door(f"{path} is not a result of evaluate", fix):
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict) or set(content) - _FIELDS or _NEEDED - set(content):
            raise ValueError(_what_it_is(content))
        result = Result(**content)
        if not (measures := result.measures()):
            raise ValueError("it measured nothing")
        for measure in measures:
            if not len(measure.keys) or not math.isfinite(measure.of_all()):
                raise ValueError(f"no items of {measure.name}")
            result.value(measure)
    return result
