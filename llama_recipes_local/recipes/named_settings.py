"""A setting from a file, and problems with it that name the file and the line."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llama_recipes_local.errors import Problem


@dataclass(frozen=True)
class Setting:
    """A flag in a file.

    Attributes:
        name: the flag without dashes; in a section with its name, as ``lora_config.r``.
        value: its text, a list of texts, or None; of JSON a bool too.
        line: where it is.
    """

    name: str
    value: Any
    line: int


@dataclass(frozen=True)
class SettingsFile:
    """A file of settings.

    Attributes:
        path: of the file.
        settings: in its order, each name once.
        problems: what of it cannot be used.
        is_record: whether a run has written it, with every setting that it had.
    """

    path: Path
    settings: list[Setting]
    problems: list[Problem]
    is_record: bool = False


def at_line(path: Path, line: int, problem: Problem) -> Problem:
    """Return a problem with the place in a file that has it."""
    return replace(problem, what=f"{path}, line {line}: {problem.what}")


def flag_name(key: str) -> str:
    """Return the flag that a key means, which may be written as on a command line."""
    return key.lstrip("-").replace("-", "_")


def named_once(path: Path, settings: Iterable[Setting]) -> Iterator[Setting | Problem]:
    """Yield the settings, and a problem in the place of each whose name stands there again."""
    first: dict[str, int] = {}
    for setting in settings:
        if setting.name not in first:
            first[setting.name] = setting.line
            yield setting
            continue
        why, fix = f"line {first[setting.name]} has it too", "leave one of them out"
        yield at_line(path, setting.line, Problem(f"{setting.name} again", why, fix))
