"""Determines the role of each column of a user's record, by its name or by the user's flag.

``local`` uses this for each record's texts; ``turns`` reads those that are turns.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_recipes_local.datasets.base import as_text, is_blank
from llama_recipes_local.datasets.column_names import (
    ALIASES,
    CONTEXT,
    LAYOUTS,
    OPTIONAL,
    OWN,
    SURE,
    Naming,
    columns_flag,
    jq_path,
    spelled,
)
from llama_recipes_local.datasets.column_names import COLUMNS_FLAG as FLAG
from llama_recipes_local.datasets.preferences import refuse_pair
from llama_recipes_local.datasets.unread_layouts import refuse_known
from llama_recipes_local.errors import refusal
from llama_recipes_local.messages import join_names, nearest
from llama_recipes_local.records.checked_values import Record, refuse_flawed

# Names of columns that describe a record, and words that are no language.
_ABOUT = re.compile(
    r"(^|[\W_])(id|ids|uuid|guid|idx|index|hash|sha\d*|md5|url|uri|link|path|file|filename|date|time"
    r"|timestamp|created|updated|lang|language|source|split|model|license|version|repo|repository"
    r"|author|category|kind|type|tags?|subset|domain|topic|size)($|[\W_])",
    re.IGNORECASE,
)
_CODE = re.compile(r"\d.*[-_:.]|[-_:].*\d|^[0-9a-fA-F]{8,}$|/")
FORMAT_FLAG = "--local_dataset.format"
ACCEPTED = (
    "messages (a list of role and content), conversations (a list of from and value), "
    "instruction and output and perhaps input, prompt and completion or response (or question and "
    "answer, query and response, input and output or target), or text"
)


@dataclass(frozen=True)
class Layout:
    """The role of each column of a record.

    Attributes:
        name: one of ``LAYOUTS``.
        columns: (role, column's name) for each column of the layout.
    """

    name: str
    columns: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(column for _, column in self.columns)})"

    @property
    def is_distinct(self) -> bool:
        """Whether no column has two roles."""
        return len({column for _, column in self.columns}) == len(self.columns)

    def values(self, record: Record) -> dict[str, Any]:
        """Return a record's values by role; None for an optional column that is missing.

        Raises:
            UsageError: if the record is of another layout.
        """
        refuse_flawed(record)
        where, values = record
        for role, column in self.columns:
            if column not in values and role not in OPTIONAL:
                other = _matching(values, {}, OWN)
                raise refusal(
                    f"{where} has no {column!r}",
                    f"the first record's layout is {self}; this one's keys are {_keys(values)}, "
                    f"which is {' or '.join(map(str, other)) or 'none of the known layouts'}",
                    "keep records of one layout in a file, and train on one layout at a time"
                    if other
                    else f"add {column!r} to it",
                )
        return {role: values.get(column) for role, column in self.columns}


def parse_columns(named: str) -> dict[str, str]:
    """Return the columns that the flag names, by role.

    Raises:
        UsageError: if one is not ``WHAT=COLUMN``, or ``WHAT`` is unknown.
    """
    known = {role: role for roles in LAYOUTS.values() for role in roles} | {
        "response": "completion"
    }
    parsed: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in named.split(","))):
        role, _, column = (side.strip() for side in part.partition("="))
        if role not in known or not column or known[role] in parsed:
            raise refusal(
                f"{FLAG}={named} is invalid at {part!r}",
                f"it takes WHAT=COLUMN, once each, with one of {', '.join(known)}",
                f"for example {FLAG}=prompt=question,completion=answer",
            )
        parsed[known[role]] = column
    if parsed.keys() & {"instruction", "input"} and "completion" in parsed:
        parsed.setdefault("output", parsed.pop("completion"))  # what an instruction calls it
    return parsed


def find_layout(record: Record, wanted: str, named: Mapping[str, str]) -> Layout:
    """Return the layout of the first record.

    Args:
        record: the record.
        wanted: the layout's name, or "auto" to find it.
        named: the columns that the user named, by role.

    Raises:
        UsageError: if it is none of the layouts, or could be more than one.
    """
    refuse_flawed(record)
    where, values = record
    matching = [layout for layout in _ways(values, named) if wanted in ("auto", layout.name)]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        _refuse_missing(record, named)
        refuse_pair(record)
        refuse_known(record)
        asked = "" if wanted == "auto" else f" of the layout {wanted}"
        raise refusal(
            f"{where} is not a record{asked} of a known layout",
            f"its keys are {_keys(values)}; the layouts are {ACCEPTED}",
            _name_columns(values),
        )
    one = matching[0]
    if len({layout.name for layout in matching}) > 1:
        fix = f"choose one: {FORMAT_FLAG}={one.name}"
    else:
        fix = f"choose one: {columns_flag(dict(one.columns))}"
    raise refusal(
        f"{where} matches more than one layout",
        f"its keys are {_keys(values)}: {', or '.join(map(str, matching))}",
        fix,
    )


def read_text(value: object, what: str) -> str | None:
    """Return a text, or None if it is missing or blank; ``what`` names it.

    Raises:
        UsageError: if it is not text, or cannot be encoded as UTF-8.
    """
    text = as_text(value, what)
    return None if is_blank(text) else text


def _ways(values: Mapping[str, Any], named: Mapping[str, str]) -> list[Layout]:
    """Return the ways in which a record's columns make up a layout.

    The layout's own names take precedence over other names. A text may come together with its
    parts.
    """
    own = _matching(values, named, OWN)
    if any(layout.name != "text" for layout in own):
        return own
    groups = (_matching(values, named, group) for group in (SURE if own else ALIASES))
    return own + next(filter(None, groups), [])


def _refuse_missing(record: Record, named: Mapping[str, str]) -> None:
    """Refuse columns that the user named and the record does not have."""
    where, values = record
    missing = [name for name in named.values() if spelled(name, values) is None]
    if missing:
        near = [nearest(name, map(str, values)) for name in missing]
        fix = f"did you mean {' and '.join(filter(None, near))}?" if any(near) else ""
        raise refusal(
            f"{where} has no column {', '.join(missing)}, which {FLAG} names",
            f"its columns are {_keys(values)}",
            fix or _name_columns(values),
        )


def _name_columns(values: Mapping[str, Any]) -> str:
    """Return how to name a record's columns, using its longest texts in the record's order."""
    for name, value in values.items():
        rows = value if isinstance(value, list) else []
        if rows and isinstance(rows[0], Mapping) and _ways(rows[0], {}):
            program = shlex.quote(f"{jq_path(str(name))}[]")
            return f"if {name} has the records: jq -c {program} FILE.json > rows.jsonl"
    texts = {
        str(name): value
        for name, value in values.items()
        if isinstance(value, str)
        and str(name).strip()
        and not _describes(str(name), value)
        and str(name).strip().casefold() not in CONTEXT
    }
    longest = sorted(texts, key=lambda name: -len(texts[name]))[:2]
    names = [name for name in texts if name in longest]
    if any("," in name or "=" in name for name in names):
        return "give the columns names without commas and equals signs"
    if len(names) == 2:
        example = {"prompt": names[0], "completion": names[1]}
        return f"name the columns, for example {columns_flag(example)}"
    nested = [str(name) for name, value in values.items() if isinstance(value, list | Mapping)]
    if nested:
        return f"write {join_names(nested)} as messages: a list of turns of role and content"
    return f"name the column: {columns_flag({'text': names[0] if names else 'COLUMN'})}"


def _describes(name: str, value: str) -> bool:
    """Return whether a text is about its record, such as a number, a date or an address."""
    is_word = len(value.split()) < 2 and value.isascii()
    return bool(_ABOUT.search(name)) or (is_word and bool(_CODE.search(value)))


def _matching(
    values: Mapping[str, Any], named: Mapping[str, str], namings: Sequence[Naming]
) -> list[Layout]:
    """Return every way in which a record's columns make up a layout, each once."""
    layouts = []
    for naming in namings:
        roles = naming.names
        ways: list[tuple[tuple[str, str], ...]] = [()] if set(named) <= set(roles) else []
        for role, names in roles.items():
            choices = (named[role],) if role in named else names
            there = (spelled(column, values) for column in choices)
            present = [column for column in there if column is not None]
            if not present and role in naming.optional and role not in named:
                present = [names[0]]
            ways = [(*way, (role, column)) for way in ways for column in present]
        layouts += [Layout(naming.layout, way) for way in ways]
    return [layout for layout in dict.fromkeys(layouts) if layout.is_distinct]


def _keys(values: Mapping[str, Any]) -> str:
    return ", ".join(map(str, values)) or "none"
