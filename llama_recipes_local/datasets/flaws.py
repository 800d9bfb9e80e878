"""Everything that is wrong with a split's records, once one of them could not be used."""

import re
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.datasets.base import Split
from llama_recipes_local.errors import Problem, UsageError

SKIP_FLAG = "--local_dataset.skip_bad_rows"
FIRST = 3
MOST_KINDS = 20


@dataclass
class _Kind:
    """Problems that differ in the record alone: the first, and where the others are."""

    problem: Problem
    count: int = 0
    places: list[str] = field(default_factory=list)

    def summed_up(self) -> Problem:
        """Return the first problem, with how many records have it and where the first are."""
        if self.count == 1:
            return self.problem
        more = ", ..." if self.count > len(self.places) else ""
        where = f"{self.count:,} records are so: {', '.join(self.places)}{more}"
        return replace(self.problem, why=f"{self.problem.why}; {where}")


def find_flaws(split: Split, tokenizer: PreTrainedTokenizerBase | None) -> list[Problem]:
    """Return each kind of problem with a split's records, with its count and first places.

    All records are read and formatted, so call it once one has failed.
    """
    kinds: dict[str, _Kind] = {}
    try:
        for record in split.records():
            try:
                split.formatter(record, tokenizer)
            except UsageError as error:
                for problem in error.problems:
                    _add(kinds, problem, record[0])
    except UsageError as error:  # the file cannot be read further
        for problem in error.problems:
            _add(kinds, problem, "")
    found = [kind.summed_up() for kind in list(kinds.values())[:MOST_KINDS]]
    if not hasattr(split.formatter, "skip_bad_rows"):
        return found
    skip = f"leave such rows out: {SKIP_FLAG}=True"
    return [
        problem.or_else(skip) if kind.places != [""] else problem
        for kind, problem in zip(kinds.values(), found, strict=False)
    ]


def _add(kinds: dict[str, _Kind], problem: Problem, place: str) -> None:
    alike = problem.what.replace(place, "") if place else problem.what
    kind = kinds.setdefault(re.sub(r"\d+", "N", alike), _Kind(problem))
    kind.count += 1
    if len(kind.places) < FIRST:
        kind.places.append(place.partition(" of ")[0])
