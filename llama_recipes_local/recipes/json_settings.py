"""Settings from JSON: a file of settings, or a run's record, which repeats that run.

Numbers are kept as text; the types of the fields decide what they mean.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_recipes_local.errors import Problem, door
from llama_recipes_local.recipes.named_settings import Setting, at_line, flag_name
from llama_recipes_local.typed_words import Typed

_CONFIGURATIONS = ("_config", "_dataset")
_EXAMPLE = 'write it as {"lr": 2e-4, "use_peft": true}'


@dataclass(frozen=True)
class _Object:
    """A JSON object as a list of all its pairs, so that a repeated key is not lost."""

    pairs: list[tuple[str, Any]]


def read_json(path: Path, text: str) -> tuple[list[Setting | Problem], bool]:
    """Return the settings, a problem for each entry that is not one, and whether a run wrote them.

    Raises:
        UsageError: if it is not a JSON object.
    """
    with door(f"{path} is not JSON with settings", _EXAMPLE):
        content = json.loads(
            text,
            object_pairs_hook=_Object,
            parse_int=Typed,
            parse_float=Typed,
            parse_constant=Typed,
        )
        if not isinstance(content, _Object) or not content.pairs:
            raise ValueError("it has no names with values")
    is_record = {"train_config", "versions"} <= {key for key, _ in content.pairs}
    return list(_settings(path, text, content, is_record)), is_record


def _settings(
    path: Path, text: str, content: _Object, is_record: bool
) -> Iterator[Setting | Problem]:
    line_of = _lines(text)
    for key, value in content.pairs:
        line, name = line_of(key), flag_name(key)
        if isinstance(value, _Object) and (key.endswith(_CONFIGURATIONS) or not is_record):
            for inner, its in value.pairs:
                yield from _setting(path, f"{name}.{flag_name(inner)}", its, line_of(inner))
        elif not is_record:
            yield from _setting(path, name, value, line)


def _setting(path: Path, name: str, value: Any, line: int) -> Iterator[Setting | Problem]:
    items = value if isinstance(value, list) else [value]
    if any(isinstance(each, (list, _Object)) for each in items):
        why = "a setting is a number, a text, true, false, null or a list of texts"
        yield at_line(path, line, Problem(f"{name} is nested", why, _EXAMPLE))
    else:
        yield Setting(name, value, line)


def _lines(text: str) -> Callable[[str], int]:
    """Return a function that finds the line of a key; ask for keys in the file's order."""
    place = 0

    def line_of(key: str) -> int:
        nonlocal place
        quoted = json.dumps(key, ensure_ascii=False), json.dumps(key)
        found = re.compile("|".join(f"{re.escape(each)}\\s*:" for each in quoted)).search(
            text, place
        )
        place = found.end() if found else place
        return text.count("\n", 0, found.start() if found else place) + 1

    return line_of
