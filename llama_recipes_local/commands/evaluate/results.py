"""What an evaluation found: kept as JSON, from which every measure can be taken again."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from llama_recipes_local.commands.evaluate.gleu import gleu, words
from llama_recipes_local.commands.evaluate.measures import Measure, exponential_ratio, ratio
from llama_recipes_local.commands.evaluate.rouge import rouge
from llama_recipes_local.errors import UsageError, refusal
from llama_recipes_local.messages import missing_path
from llama_recipes_local.storage.publishing import write_json

METRICS = ("loss", "perplexity", "gleu", "rouge")
GENERATED = ("gleu", "rouge")


@dataclass
class Result:
    """What an evaluation found.

    Attributes:
        about: what was measured, on which data, with which versions.
        metrics: by name, ``value`` and its confidence interval from ``low`` to ``high``.
        asked: the metrics that were asked for.
        documents: of each document its ``key``, ``loss`` (a sum) and ``tokens``.
        answers: of each prompt its ``key``, ``source``, ``prediction`` and ``references``.
    """

    about: dict[str, Any]
    asked: list[str]
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    documents: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)

    def measures(self) -> list[Measure]:
        """Return the measures that were asked for, of the items that are kept."""
        found: list[Measure] = []
        keys = tuple(each["key"] for each in self.documents)
        parts = np.array([[each["loss"], each["tokens"]] for each in self.documents], float)
        if "loss" in self.asked:
            found.append(Measure("loss", keys, parts, ratio, False))
        if "perplexity" in self.asked:
            found.append(Measure("perplexity", keys, parts, exponential_ratio, False))
        keys = tuple(each["key"] for each in self.answers)
        sources, ours = ([each[part] for each in self.answers] for part in ("source", "prediction"))
        theirs = [each["references"] for each in self.answers]
        if "gleu" in self.asked:
            in_words = [[words(text) for text in each] for each in theirs]
            found.append(gleu(keys, [*map(words, sources)], [*map(words, ours)], in_words))
        if "rouge" in self.asked:
            found += rouge(keys, ours, theirs)
        return found

    def save(self, path: Path) -> None:
        """Write the result, whole or not at all."""
        write_json(path, asdict(self), indent=1)


def table(rows: list[list[str]], headers: list[str]) -> str:
    """Return a table; figures keep the places that they are given with."""
    alignment = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers=headers, disable_numparse=True, colalign=alignment)


def read_result(path: Path) -> Result:
    """Read a result.

    Raises:
        UsageError: if the file holds none.
    """
    fix = "name two files that `llama-recipes-local evaluate --out FILE` wrote"
    if not path.exists():
        raise UsageError([missing_path(path.absolute(), fix)])
    try:
        result = Result(**json.loads(path.read_text("utf-8")))
        for measure in result.measures():
            if not len(measure.keys) or not math.isfinite(measure.of_all()):
                raise ValueError(f"it has no items of {measure.name}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise refusal(f"{path} is no result", repr(error), fix) from error
    return result
