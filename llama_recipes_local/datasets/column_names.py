"""Names of columns in public data sets, by which ``layouts`` recognises a record."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Names = dict[str, tuple[str, ...]]
"""Names of columns by what they are; any of them will do."""

# The columns of each layout.
LAYOUTS: dict[str, Names] = {
    "messages": {"messages": ("messages",)},
    "conversations": {"conversations": ("conversations",)},
    "instruction": {
        "instruction": ("instruction",),
        "input": ("input",),
        "output": ("output",),
    },
    "prompt": {"prompt": ("prompt",), "completion": ("completion", "response")},
    "text": {"text": ("text",)},
}
OPTIONAL = ("input",)


@dataclass(frozen=True)
class Naming:
    """Names of columns that make up a layout.

    Attributes:
        layout: one of ``LAYOUTS``.
        names: the names of its columns.
        optional: columns that a record may lack.
    """

    layout: str
    names: Names
    optional: tuple[str, ...] = OPTIONAL


OWN = tuple(Naming(layout, names) for layout, names in LAYOUTS.items())

_ASKED = ("prompt", "question", "query", "problem", "input", "问题")
_ANSWERED = ("completion", "response", "answer", "output", "solution", "回答", "答案")
_SAID = ("target", "assistant", "gpt")
# Other names for the same, the surest first: a record is of the first group that it fits.
SURE: tuple[tuple[Naming, ...], ...] = (
    (Naming("conversations", {"conversations": ("conversation", "dialog", "turns")}),),
    (
        Naming(
            "instruction",
            {
                "instruction": ("instruction", "指令"),
                "input": ("input", "context", "question", "输入"),
                "output": ("output", "response", "answer", "completion", "输出"),
            },
        ),
    ),
    (
        Naming(  # a question about something
            "instruction",
            {
                "instruction": ("question", "query"),
                "input": ("context", "passage"),
                "output": ("answer", "response", "completion", "output"),
            },
            optional=(),
        ),
    ),
    (Naming("prompt", {"prompt": _ASKED, "completion": _ANSWERED}),),
)
# "source" and "user" alone mostly say where a record comes from.
_RARE = (
    Naming("prompt", {"prompt": _ASKED, "completion": _SAID}),
    Naming("prompt", {"prompt": ("user", "human"), "completion": (*_ANSWERED, *_SAID)}),
    Naming("prompt", {"prompt": ("source",), "completion": ("target",)}),
    Naming("prompt", {"prompt": ("inputs",), "completion": ("targets",)}),
)
ALIASES = (*SURE, _RARE)

# Columns of any layout but text that go around a record's turns, by their names.
CONTEXT = {
    "system": "system",
    "system_prompt": "system",
    "history": "history",
    "tools": "tools",
    "functions": "tools",
}

COLUMNS_FLAG = "--local_dataset.columns"


def columns_flag(columns: Mapping[str, str]) -> str:
    """Return the flag that assigns columns to their roles, quoted for a shell."""
    named = ",".join(f"{role}={name.strip()}" for role, name in columns.items())
    return shlex.quote(f"{COLUMNS_FLAG}={named}")


def spelled(name: str, values: Mapping[str, Any]) -> str | None:
    """Return a column's name as a record spells it: in any case, and with white space around it."""
    if name in values:
        return name
    return next((key for key in values if str(key).strip().lower() == name.lower()), None)


def jq_path(column: str) -> str:
    """Return a column's path for jq."""
    if column.isascii() and column.isidentifier():
        return f".{column}"
    return f".[{json.dumps(column, ensure_ascii=False)}]"


def of_alternating(column: str) -> str:
    """Return the command that makes messages of alternating texts, the user's first."""
    program = (
        f"{{messages: [{jq_path(column)} | to_entries[] | "
        '{role: (if .key % 2 == 0 then "user" else "assistant" end), content: .value}]}'
    )
    return f"jq -c {shlex.quote(program)} FILE.jsonl > chats.jsonl"
