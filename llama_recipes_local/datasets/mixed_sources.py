"""Which data sets a mixture names, and with which weights.

Resolving a run's flags and the preflight ask this.
"""

import math
import os
import re
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from llama_recipes_local.datasets.local import local_dataset
from llama_recipes_local.datasets.mixture import MIXTURE_FLAG, mixed_dataset, split_sources
from llama_recipes_local.datasets.named_path import is_path
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import Problem
from llama_recipes_local.messages import nearest
from llama_recipes_local.storage import data_root

LOCAL, MIXED = local_dataset.__name__, mixed_dataset.__name__


@dataclass(frozen=True)
class NamedSource:
    """A source as ``--dataset`` names it.

    Attributes:
        name: what it is called where losses are reported: the data set's name, or the last part of
            its path.
        dataset: the data set's name; ``local_dataset`` for a path.
        weight: above 0, on any scale.
        path: the path; "" if a data set is named.
    """

    name: str
    dataset: str
    weight: float
    path: str = ""


def named_sources(config: mixed_dataset) -> tuple[list[NamedSource], list[Problem]]:
    """Return the sources of a mixture that can be used, and what is wrong with the others."""
    sources: list[NamedSource] = []
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    items = split_sources(config.sources)
    for named, weight in items:
        wrong = _wrong(named, weight, config.data_root)
        place = _place(named, config.data_root)
        if not wrong and place in seen:
            why = f"{seen[place]} is the same data, and would have two weights"
            wrong = [Problem(f"--dataset names {named} twice", why, "name it once: NAME:WEIGHT")]
        problems += wrong
        if not wrong:
            seen[place] = named
            sources.append(_source(named, float(weight or 0), {each.name for each in sources}))
    if len(items) == 1 and not problems:
        why = "a weight is a share of several data sets, and would be ignored"
        what = f"--dataset {config.sources} names one data set"
        problems.append(Problem(what, why, f"--dataset {items[0][0]}, or more: {MIXTURE_FLAG}"))
    return sources, problems


def _place(named: str, root: str) -> str:
    """Return what two names for the same data have in common."""
    return named if named in DATASETS else str(data_root.resolve(named, root))


def _source(named: str, weight: float, taken: set[str]) -> NamedSource:
    if named in DATASETS:
        return NamedSource(named, named, weight)
    # loggers take no other characters in a name
    short = re.sub(r"[^\w.\- ]", "_", Path(named).name) or "root"
    names = chain([short], (f"{short}-{number}" for number in count(2)))
    free = next(name for name in names if name not in taken)
    return NamedSource(free, LOCAL, weight, os.path.expanduser(named))


def _wrong(named: str, weight: str | None, root: str) -> list[Problem]:
    """Return what is wrong with one source."""
    if not named:
        what = "--dataset has a source without a name"
        return [Problem(what, "sources are separated by one comma", MIXTURE_FLAG)]
    if named == MIXED or (named not in DATASETS and not is_path(named, root)):
        names = [name for name in DATASETS if name != MIXED]
        near = nearest(named, names)
        why = f"the data sets are {', '.join(names)}; a path has a / or the ending of a data file"
        fix = f"did you mean {near}?" if near else f"name one of them, or a file: {MIXTURE_FLAG}"
        return [Problem(f"unknown data set {named} in --dataset", why, fix)]
    if weight is None or not weight.strip():
        why = "each source of a mixture has one: its share of the label tokens of an epoch"
        return [Problem(f"--dataset names {named} without a weight", why, f"{named}:1")]
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        why = "it must be a number above 0; weights need not add up to 1"
        leave = f", or leave {named} out" if number <= 0 else ""
        return [Problem(f"the weight of {named} is {weight}", why, f"{named}:1{leave}")]
    return []
