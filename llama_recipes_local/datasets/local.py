"""``local_dataset``: the user's own files, found, told apart by split, and looked into."""

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from llama_recipes_local import parallel
from llama_recipes_local.datasets.base import Split
from llama_recipes_local.datasets.layouts import (
    FORMAT_FLAG,
    LAYOUTS,
    OPTIONAL,
    Layout,
    find_layout,
    parse_columns,
)
from llama_recipes_local.datasets.locating import EVERY_RECORD
from llama_recipes_local.datasets.rows import CHOICES, RowFormatter, default_template
from llama_recipes_local.datasets.templates import FLAG as TEMPLATE_FLAG
from llama_recipes_local.errors import Problem, UsageError, refusal, refuse
from llama_recipes_local.messages import join_names, missing_path
from llama_recipes_local.records.any_format import READ, data_files, records
from llama_recipes_local.records.checked_values import Record
from llama_recipes_local.records.finding import without_packed_twins
from llama_recipes_local.storage import data_root
from llama_recipes_local.storage.names import natural_key

DATA_FLAG = "--local_dataset.data_path=PATH"
VALIDATION_FLAG = "--local_dataset.validation_path=PATH"
LABELS = ("assistant", "all")

_NAMES = {
    "train": re.compile(r"(?<![a-z])[a-z]?train(ing)?(?![a-z])"),
    "validation": re.compile(r"(?<![a-z])(valid|validation|val|eval|evaluation|dev)(?![a-z])"),
    "test": re.compile(r"(?<![a-z])(test|testing)(?![a-z])"),
}


@dataclass(frozen=True)
class LocalPart:
    """The training or the validation part of the user's data.

    Attributes:
        files: the files it is read from.
        every: of how many rows in them one is held out for validation; 0 if none is.
        training: whether it is the part to train on.
        layout: which column is what.
        columns: the columns that are read.
    """

    files: tuple[Path, ...]
    every: int
    training: bool
    layout: Layout
    columns: tuple[str, ...]

    def records(self) -> Iterator[Record]:
        """Yield the part's records; the first of each ``every``, if any, is for validation."""
        number = 0
        for path in self.files:
            for record in records(path, self.columns):
                if not self.every or (number % self.every == 0) != self.training:
                    yield record
                number += 1

    def __str__(self) -> str:
        return f"{self.layout} from {join_names(map(str, self.files))}"

    @property
    def told_held_out(self) -> str:
        """What to say of rows that are held out; empty if none are."""
        if not self.every:
            return ""
        which = "all rows but" if self.training else "of the rows,"
        return f"; {which} the first of each {self.every}, for there are no files for validation"

    @property
    def which(self) -> str:
        """Which of the files' records the part has; see ``Split.part``."""
        if not self.every:
            return EVERY_RECORD
        held_out = f"1 record in {self.every}"
        return f"all but {held_out}" if self.training else held_out


def find_part(config: Any, training: bool) -> LocalPart:
    """Find the files of a part of the user's data, and tell their layout by the first record.

    Args:
        config: a ``local_dataset``.
        training: whether the part to train on is wanted; else the one for validation.

    Raises:
        UsageError: if a flag is wrong, there is no file, or the first record is not understood.
    """
    refuse(_flag_problems(config))
    named = parse_columns(config.columns)
    files, every = _chosen(config, training)
    begun = [record for path in files[:1] for record in islice(records(path), 2)]
    layout = find_layout(begun[0], config.format, named)
    if every and training and len(files) == 1 and len(begun) < 2:
        raise refusal(
            f"{files[0]} has one record",
            "the first is held out for validation: none is left to train on",
            f"add records, or name others for validation: {VALIDATION_FLAG}",
        )
    there = begun[0][1]
    columns = [name for role, name in layout.columns if role not in OPTIONAL or name in there]
    return LocalPart(tuple(files), every, training, layout, tuple(columns))


def local_split(config: Any, part: str) -> Split:
    """Find a split of the user's data, and say how it is read.

    Args:
        config: a ``local_dataset``.
        part: its ``train_split``; anything else is validation.

    Raises:
        UsageError: if a flag is wrong, there is no file, or the first record is not understood.
    """
    found = find_part(config, part == config.train_split)
    formatter = _formatter(config, found.layout)
    tell(
        f"--> {part}: {found}, template {formatter.template}, "
        f"labels {formatter.labels}{found.told_held_out}"
    )
    return Split(found.files, found.which, found.records, formatter)


def _flag_problems(config: Any) -> list[Problem]:
    problems = []
    for name, choices in (
        ("format", ("auto", *LAYOUTS)),
        ("template", ("auto", *CHOICES)),
        ("labels", LABELS),
    ):
        value = getattr(config, name)
        if value not in choices:
            what = f"--local_dataset.{name}={value} does not exist"
            why = f"there are {', '.join(choices)}"
            problems.append(Problem(what, why, f"choose one: --local_dataset.{name}={choices[0]}"))
    if not 0 < config.validation_fraction <= 0.5:
        problems.append(
            Problem(
                f"--local_dataset.validation_fraction={config.validation_fraction} is not a share "
                "that can be held out",
                "it is above 0, and at most 0.5",
                f"to train on every row, name the rows for validation: {VALIDATION_FLAG}",
            )
        )
    return problems


def _chosen(config: Any, training: bool) -> tuple[list[Path], int]:
    """Return a split's files, and of how many rows in them one is held out; 0 if none is."""
    files = _files(config.data_path, DATA_FLAG)
    if config.validation_path:
        held_out = _files(config.validation_path, VALIDATION_FLAG)
        if not training:
            return held_out, 0
        known = set(held_out)
        # the same file for both is the user's wish; a folder's own validation files are not
        return [path for path in files if path not in known] or files, 0
    kinds = _kinds(files)
    for_validation = "validation" if "validation" in kinds else "test"
    if "train" in kinds and for_validation in kinds:
        left_out = [
            str(path)
            for path, kind in zip(files, kinds, strict=True)
            if kind not in ("train", for_validation)
        ]
        if left_out:
            tell(f"--> left out, for their names are of no split: {join_names(left_out)}")
        wanted = "train" if training else for_validation
        return [path for path, kind in zip(files, kinds, strict=True) if kind == wanted], 0
    return files, round(1 / config.validation_fraction)


def _files(path: str, flag: str) -> list[Path]:
    """Return the files that a path means, in natural order.

    Raises:
        UsageError: if there are none.
    """
    place = data_root.resolve(path)
    if place.is_dir():
        return data_files(place, f"put them there, or name another place: {flag}")
    if place.is_file():
        return [place]
    if place.exists():
        why = "it is read more than once, and a pipe or device can be read only once"
        raise refusal(f"{place} is no file", why, f"write it to a file first, or name one: {flag}")
    if not glob.has_magic(str(place)):
        raise UsageError([missing_path(place, f"put data there, or name another place: {flag}")])
    found = [Path(name) for name in glob.glob(str(place), recursive=True)]
    files = sorted((path for path in found if path.is_file()), key=lambda p: natural_key(str(p)))
    if not files:
        raise refusal(f"no file is named like {place}", f"read are {READ}", f"name one: {flag}")
    return without_packed_twins(files)


def _kinds(files: Sequence[Path]) -> list[str]:
    """Return which split each file is of by its name, or else by its folder's.

    It is empty if neither tells. Folders that all the files are in tell nothing.
    """
    shared = set.intersection(*(set(path.parents) for path in files))
    return [_kind([path, *(each for each in path.parents if each not in shared)]) for path in files]


def _kind(parts: Sequence[Path]) -> str:
    """Return the split that the first of a path's parts tells which tells one."""
    for part in parts:
        kinds = [kind for kind, name in _NAMES.items() if name.search(part.name.lower())]
        if kinds:
            return kinds[0] if len(kinds) == 1 else ""
    return ""


def _formatter(config: Any, layout: Layout) -> RowFormatter:
    template = config.template
    if template == "auto":
        template = default_template(layout.name)
    if layout.name not in CHOICES[template]:
        fitting = [name for name, layouts in CHOICES.items() if layout.name in layouts]
        raise refusal(
            f"{TEMPLATE_FLAG}={template} does not go with {layout} records",
            f"it is for {', '.join(CHOICES[template])}",
            f"name another, {TEMPLATE_FLAG}={fitting[0]}, or another layout, {FORMAT_FLAG}=NAME",
        )
    return RowFormatter(layout, template, config.labels)


@cache
def tell(line: str) -> None:
    """Print a line once: a split is looked at before the run and again when it is read."""
    if parallel.is_rank_zero():
        print(line)
