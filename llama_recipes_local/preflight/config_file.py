"""``--config``: settings from a recipe, a file or a run's record, which flags override.

``--preset NAME``, the former spelling, accepts the recipes of that time too.
"""

from dataclasses import dataclass, field
from typing import Any

from llama_recipes_local.datasets.named_path import OF_THE_FILES, named_path
from llama_recipes_local.errors import Problem
from llama_recipes_local.field_values import convert
from llama_recipes_local.fields import OF_ONE_RUN, Resume, defaults, facts, type_hints
from llama_recipes_local.messages import nearest
from llama_recipes_local.preflight.flags import check_flags, configurations, switches
from llama_recipes_local.recipes import shipped
from llama_recipes_local.recipes.named_settings import Setting, SettingsFile, at_line
from llama_recipes_local.recipes.settings_file import read_settings
from llama_recipes_local.typed_words import SETTINGS

CONFIG_FLAGS = SETTINGS[:2]
_ELSEWHERE = ("preset", *CONFIG_FLAGS)


@dataclass(frozen=True)
class Configured:
    """The flags of a run together with what a file of settings adds to them.

    Attributes:
        flags: the flags that were given, after the file's settings that no flag overrides.
        settings: the file's settings.
        problems: what is wrong with the file.
        unusable: names of settings that are wrong.
        recipe: the name of a recipe of the package; "" for a file, or without one.
        name: of the recipe or file, for messages; "" without one.
        left_out: settings of a run's record that belong to that run or its machine, in words.
        is_record: whether the file is a run's record.
    """

    flags: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unusable: frozenset[str] = frozenset()
    recipe: str = ""
    name: str = ""
    left_out: list[str] = field(default_factory=list)
    is_record: bool = False


def with_config(given: dict[str, Any]) -> Configured:
    """Return the flags together with the settings of the file that ``--config`` names.

    Args:
        given: the flags, by name: their text, or what Python passed.
    """
    if several := _several(given):
        others = {name: value for name, value in given.items() if name not in SETTINGS}
        return Configured(switches(others), problems=several)
    flags, problems = _with_former_name(switches(given))
    named = next((flags[flag] for flag in CONFIG_FLAGS if flag in flags), None)
    if isinstance(named, bool) or named is None or not str(named).strip():
        return Configured(flags, problems=problems)  # without a value, which is reported
    word = str(named)
    file = read_settings(word)
    taken, left_out = _of_record(file) if file.is_record else (file.settings, [])
    usable, wrong = _checked(file, taken)
    settings = {name: value for name, value in usable.items() if not _is_overridden(name, flags)}
    recipe = word if word in shipped.names() else ""
    return Configured(
        settings | flags,
        settings,
        problems + file.problems + wrong,
        frozenset(setting.name.rpartition(".")[2] for setting in taken) - _bare(usable),
        recipe,
        f"Recipe {recipe}" if recipe else str(file.path),
        left_out,
        file.is_record,
    )


def _several(given: dict[str, Any]) -> list[Problem]:
    """Return the problem that several files of settings are given."""
    named = [
        f"--{name} {word}"
        for name, value in given.items()
        if name in CONFIG_FLAGS or (isinstance(value, list) and name in SETTINGS)
        for word in (value if isinstance(value, list) else [value])
    ]
    if len(named) < 2:
        return []
    why = "settings come from one file, and the others would be ignored"
    fix = "name one of them, and give other settings as flags, which override it"
    return [Problem(" with ".join(named), why, fix)]


def _with_former_name(flags: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Return the flags with ``--config`` for ``--preset``."""
    former = next((name for name in ("preset", "train_config.preset") if name in flags), None)
    if former is None:
        return flags, []
    others = {name: value for name, value in flags.items() if name != former}
    preset = str(flags[former])
    if not preset.strip() and not others.keys() & set(CONFIG_FLAGS):
        return others, []  # its default in Python
    if named := next((name for name in CONFIG_FLAGS if name in others), None):
        why, fix = "--preset is the former name of --config", "leave --preset out"
        return others, [Problem(f"--preset {preset} with --{named} {others[named]}", why, fix)]
    if preset in shipped.names():
        return {**others, "config": preset}, []
    known = shipped.names()
    near = nearest(preset, known)
    fix = f"did you mean --config {near}?" if near else "name one: --config NAME"
    what, why = f"unknown --preset {preset}", f"it is --config now, and knows {', '.join(known)}"
    return others, [Problem(what, why, fix)]


def _checked(file: SettingsFile, settings: list[Setting]) -> tuple[dict[str, Any], list[Problem]]:
    """Return the settings that are flags, with values of their types, and problems with others."""
    usable: dict[str, Any] = {}
    problems = []
    for setting in settings:
        section, _, name = setting.name.rpartition(".")
        if name in _ELSEWHERE:
            why, fix = "a file of settings names no other", "copy what it sets"
            found = [Problem(f"{setting.name} in a file", why, fix)]
        elif section and section not in configurations():
            near = nearest(section, configurations())
            fix = f"did you mean {near}?" if near else f"write {name} without it"
            found = [Problem(f"unknown section {section}", "no configuration has this name", fix)]
        else:
            known, found = check_flags({setting.name: setting.value})
            usable |= known
        problems += [at_line(file.path, setting.line, problem) for problem in found]
    return usable, list(dict.fromkeys(problems))


def _is_overridden(name: str, flags: dict[str, Any]) -> bool:
    """Return whether a flag overrides a setting; one for a single configuration adds to it."""
    bare = name.rpartition(".")[2]
    of_other_files = named_path(flags) and bare in OF_THE_FILES
    return name in flags or bare in flags or bool(of_other_files)


def _of_record(file: SettingsFile) -> tuple[list[Setting], list[str]]:
    """Return the settings of a record for another run, and in words which are left out.

    Settings at their default are left out, except the rows of a step: without them, these would be
    chosen automatically.
    """
    taken, left_out = [], []
    sections = [setting.name.rpartition(".")[::2] for setting in file.settings]
    for setting, (section, name) in zip(file.settings, sections, strict=True):
        cls = configurations().get(section)
        if cls is None or name not in facts(cls):
            taken.append(setting)  # which is reported
            continue
        known, default = facts(cls)[name], _is_default(cls, setting.value, name)
        if OF_ONE_RUN in known.marks:
            left_out += [] if default or name in _ELSEWHERE else [f"{name} {setting.value}"]
        elif not default or known.resume is Resume.BATCH:
            several = sum(other == name for _, other in sections) > 1
            taken.append(Setting(setting.name if several else name, setting.value, setting.line))
    return taken, left_out


def _is_default(cls: type, value: object, name: str) -> bool:
    default = defaults(cls)[name]
    if str(value).rpartition(".")[2] == default:  # of a library's type, whose default is its word
        return True
    try:
        return bool(convert(value, type_hints(cls)[name]) == default)
    except ValueError:
        return False


def _bare(names: dict[str, Any]) -> set[str]:
    return {name.rpartition(".")[2] for name in names}
