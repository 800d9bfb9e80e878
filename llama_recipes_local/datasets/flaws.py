"""Collects everything wrong with a data set's records: each kind once, with count and places."""

import re
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.datasets.base import Formatter, Split
from llama_recipes_local.datasets.rows import RowFormatter
from llama_recipes_local.datasets.templates import TemplateError
from llama_recipes_local.errors import Problem, UsageError
from llama_recipes_local.records.checked_values import Record
from llama_recipes_local.storage.names import natural_key

SKIP = "leave such rows out: --local_dataset.skip_bad_rows=True"
FIRST = 3
MOST_KINDS = 20


@dataclass
class _Kind:
    """Problems that differ only in the record: the first of them, and the places of the first ones.

    Attributes:
        flag: the flag that names other files; "" for none.
        can_skip: whether the records can be left out.
    """

    problem: Problem
    flag: str = ""
    can_skip: bool = False
    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str, problem: Problem) -> None:
        self.count += 1
        self.places = sorted([*self.places, place], key=natural_key)[:FIRST]
        if place == self.places[0]:
            self.problem = problem

    def summed_up(self) -> Problem:
        """Return the first problem, with the number of records and the first places."""
        if self.count == 1:
            return self.problem
        files = {place.partition(" of ")[2] for place in self.places}
        short = [place.partition(" of ")[0] if len(files) == 1 else place for place in self.places]
        more = ", ..." if self.count > len(short) else ""
        where = f"{self.count:,} records are so: {', '.join(short)}{more}"
        return replace(self.problem, why=f"{self.problem.why}; {where}")


@dataclass
class Flaws:
    """What is wrong with the records of some splits, by its kind.

    Attributes:
        count: how many problems were found.
    """

    count: int = 0
    _kinds: dict[str, _Kind] = field(default_factory=dict)
    _any_usable: bool = False

    def read(
        self,
        split: Split,
        tokenizer: PreTrainedTokenizerBase | None,
        flag: str = "",
        most: int | None = None,
        can_skip: bool = True,
    ) -> Record | None:
        """Add what is wrong with a split's records, and return the first usable record.

        Args:
            split: the split.
            tokenizer: the model's; None if the data set does not need it.
            flag: the flag that names other files.
            most: how many records are read, plus further ones until one is usable; None means all.
            can_skip: whether problems say that records can be left out, if the split's can be.
        """
        first = None
        can_be_used = _Check(split.formatter, tokenizer)
        can_skip = can_skip and isinstance(split.formatter, RowFormatter)
        try:
            for number, record in enumerate(split.records()):
                if most is not None and number >= most and first is not None:
                    break
                try:
                    if can_be_used(record) and first is None:
                        first = record
                except UsageError as error:
                    if isinstance(error, TemplateError):
                        raise
                    for problem in error.problems:
                        self._add(problem, record[0], flag, can_skip)
        except TemplateError as error:  # of all records, whatever other files are named
            for problem in error.problems:
                self._add(problem, "")
        except UsageError as error:  # the file cannot be read further
            for problem in error.problems:
                self._add(problem, "", flag)
        self._any_usable = self._any_usable or first is not None
        return first

    def problems(self) -> list[Problem]:
        """Return each kind of problem, with its count and first places."""
        kinds = list(self._kinds.values())[:MOST_KINDS]
        return [self._with_skip(kind) for kind in kinds]

    def _with_skip(self, kind: _Kind) -> Problem:
        """Return a kind of problem with its fix: skip these records if others are right."""
        problem = kind.summed_up()
        if kind.can_skip and self._any_usable:
            return problem.or_else(SKIP)
        return with_flag(problem, kind.flag)

    def _add(self, problem: Problem, place: str, flag: str = "", can_skip: bool = False) -> None:
        self.count += 1
        if not place:  # both splits may be of the file
            self._kinds.setdefault(problem.what, _Kind(problem, flag, count=1))
            return
        alike = re.sub(r"\d+", "N", problem.what.replace(place, ""))
        self._kinds.setdefault(alike, _Kind(problem, flag, can_skip)).add(place, problem)


def find_flaws(
    split: Split, tokenizer: PreTrainedTokenizerBase | None, most: int | None = None
) -> list[Problem]:
    """Return each kind of problem with a split's records; see ``Flaws.read``.

    Call it once a record has failed.
    """
    flaws = Flaws()
    flaws.read(split, tokenizer, most=most)
    return flaws.problems()


def with_flag(problem: Problem, flag: str) -> Problem:
    """Return a problem whose fix has the flag that names other files; empty for none."""
    if not flag or flag in problem.fix:
        return problem
    if problem.fix.endswith(("name a file", "name another")):
        return replace(problem, fix=f"{problem.fix}: {flag}")
    return problem.or_else(f"name another: {flag}")


def unskipped(split: Split) -> Split:
    """Return a split that refuses the rows that it would otherwise skip."""
    formatter = split.formatter
    if not isinstance(formatter, RowFormatter):
        return split
    return replace(split, formatter=replace(formatter, skip_bad_rows=False))


class _Check:
    """Checks whether a record can be used; turns that differ only in words are rendered once."""

    def __init__(self, formatter: Formatter, tokenizer: PreTrainedTokenizerBase | None) -> None:
        self.formatter = formatter
        self.tokenizer = tokenizer
        self._rendered: set[int] = set()

    def __call__(self, record: Record) -> bool:
        """Return whether a record has an example.

        Raises:
            UsageError: if it cannot be used and is not to be skipped.
        """
        shape = self._shape(record)
        if shape in self._rendered:
            return True
        if self.formatter(record, self.tokenizer) is None:
            return False
        if shape is not None:
            self._rendered.add(shape)
        return True

    def _shape(self, record: Record) -> int | None:
        """Return a hash of all that a template sees of turns, except words; None without turns."""
        formatter = self.formatter
        if not isinstance(formatter, RowFormatter) or not formatter.renders(self.tokenizer):
            return None
        try:
            conversation = formatter.conversation(record)
        except UsageError:
            return None  # raised again, or skipped, by the formatter
        return hash(conversation.shape) if conversation else None
