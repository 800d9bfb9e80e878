"""Which flags of ``sft.py`` can be used: those of the command line, and of ``--config FILE``."""

from collections.abc import Iterable

from llama_recipes_local.commands.sft.command_line import Flag, rename
from llama_recipes_local.commands.sft.flags import check_flags, known_names
from llama_recipes_local.commands.sft.unsupported_flags import drop_unsupported
from llama_recipes_local.errors import Problem
from llama_recipes_local.recipes import shipped
from llama_recipes_local.recipes.named_settings import Setting, at_line
from llama_recipes_local.recipes.settings_file import read_settings

CONFIG = "config"
Usable = tuple[list[Flag], list[str], list[Problem]]
"""Flags under their current names, notes on what was renamed, and problems of the others."""


def usable(flags: Iterable[Flag]) -> Usable:
    """Return which of the flags can be used."""
    files = [flag for flag in flags if flag.name == CONFIG]
    given, notes, problems = _usable(flag for flag in flags if flag.name != CONFIG)
    if not files:
        return given, notes, problems
    of_file, notes_of_file, wrong = _of_file(files[-1])
    names = {flag.name for flag in given}
    taken = [flag for flag in of_file if flag.name not in names]
    lines = [f"      {flag}" for flag in taken]
    said = "\n".join([f"--> {files[-1].values[0]} sets (flags win):", *lines]) if taken else ""
    return [*taken, *given], [*notes_of_file, *filter(None, [said]), *notes], problems + wrong


def _usable(flags: Iterable[Flag]) -> Usable:
    renamed, notes = rename(flags)
    supported, unsupported = drop_unsupported(renamed, known_names())
    valid, wrong = check_flags(supported)
    return valid, notes, unsupported + wrong


def _of_file(config: Flag) -> Usable:
    """Return the flags in the file, each problem with its line."""
    if len(config.values) != 1 or not config.values[0].strip():
        why, fix = "it takes one file of settings", "--config FILE.yaml"
        return [], [], [Problem(str(config), why, fix)]
    (word,) = config.values
    if word in shipped.names():
        why = "the recipes of the package are of finetuning.py, which has other flags"
        fix = "write a file with flags of sft.py: --config FILE.yaml"
        return [], [], [Problem(f"--config {word}", why, fix)]
    file = read_settings(word)
    found: list[Flag] = []
    notes: list[str] = []
    problems = list(file.problems)
    for setting in file.settings:
        flags, its, wrong = _usable([_flag(setting)])
        found, notes = found + flags, notes + its
        problems += [at_line(file.path, setting.line, problem) for problem in wrong]
    return found, notes, problems


def _flag(setting: Setting) -> Flag:
    values = setting.value if isinstance(setting.value, list) else [setting.value]
    return Flag(setting.name, tuple(str(value) for value in values))
