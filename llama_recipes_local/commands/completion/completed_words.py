"""What can follow each command on the command line, from the facts that ``--help`` prints."""

import argparse
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from llama_recipes_local.cli.parsing import Parser, listed, one_of, path
from llama_recipes_local.cli.tree import ROOT, Command
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.fields import FOLDER, Fact, Facts, LibraryType, facts, type_hints
from llama_recipes_local.preflight.help import listed_flags
from llama_recipes_local.recipes import shipped

_PATHS = {"DIR", "FILE", "PATH", "CSV", "RUN"}  # words of a metavar


@dataclass(frozen=True)
class Value:
    """What a flag is given, or a word without a flag.

    Attributes:
        words: the words that can be offered.
        is_path: whether files and folders are.
    """

    words: tuple[str, ...] = ()
    is_path: bool = False


@dataclass(frozen=True)
class Flag:
    """A flag.

    Attributes:
        names: with their dashes.
        help: what it is, in a few words.
        value: what it is given; None for a switch.
    """

    names: tuple[str, ...]
    help: str
    value: Value | None


@dataclass(frozen=True)
class Completed:
    """What can follow the name of a command.

    Attributes:
        name: such as "prepare grammar"; "" for the program.
        commands: the names of a group's commands, with what they do.
        flags: its own.
        takes_any_flag: whether it takes those of ``finetuning_flags`` too.
        argument: what it takes without a flag; None for nothing.
    """

    name: str
    commands: dict[str, str]
    flags: list[Flag]
    takes_any_flag: bool = False
    argument: Value | None = None


def completed(command: Command = ROOT, words: tuple[str, ...] = ()) -> Iterator[Completed]:
    """Yield what can follow a command, and each of the commands below it."""
    name = " ".join(words)
    if command.commands:
        helps = {word: each.help for word, each in command.commands.items()}
        more = [Flag(("--version",), "print the version", None)] if command is ROOT else []
        yield Completed(name, helps, [_HELP, *more])
        for word, each in command.commands.items():
            yield from completed(each, (*words, word))
        return
    parser = Parser(prog=name)
    if not command.verbatim:
        module = ".".join(("llama_recipes_local.commands", *words, "flags"))
        import_module(module.replace("-", "_")).add_arguments(parser)
    given = [each for each in parser._actions if not each.option_strings]
    flags = [_of_parser(parser, each) for each in parser._actions if each.option_strings]
    argument = _value(given[0]) if given else None
    yield Completed(name, {}, flags, command.takes_any_flag or command.verbatim, argument)


def finetuning_flags() -> list[Flag]:
    """Return the flags of ``finetuning.py``."""
    found = []
    for _, config, texts, prefix in listed_flags():
        known, types = facts(config), type_hints(config)
        for name, text in texts.items():
            value = _of_field(name, text, known[name], types[name])
            found.append(Flag((f"--{prefix}{name}",), _short(text), value))
    return found


_HELP = Flag(("-h", "--help"), "show this help message and exit", None)


def _of_parser(parser: Parser, action: argparse.Action) -> Flag:
    text = parser._get_formatter()._expand_help(action)
    value = None if action.nargs == 0 else _value(action)
    return Flag(tuple(action.option_strings), _short(text), value)


def _value(action: argparse.Action) -> Value:
    words: list[str] = []
    if isinstance(action.type, one_of) and not action.type.slow:
        words = action.type.known
    elif isinstance(action.type, listed):
        words = one_of(action.type.names).known
    elif "--dataset" in action.option_strings:
        words = list(DATASETS)
    is_path = action.type is path or bool(_PATHS & {*re.findall("[A-Z]+", str(action.metavar))})
    return Value(tuple(words), is_path)


def _of_field(name: str, text: str, known: Facts, kind: Any) -> Value | None:
    if kind is bool:
        return None
    words: list[object] = []
    if name == "config":
        words = [*shipped.names()]
    elif isinstance(kind, LibraryType):
        words = [*kind.words]
    elif known.choices and known.choices.source and '"' in text:  # may take seconds to import
        words = re.findall('"([^"]+)"', text)
    elif known.choices:
        words = [each for each in known.choices.values if isinstance(each, str)]
    elif Fact.AUTOMATIC in known.marks:
        words = ["auto"]
    is_path = FOLDER in known.marks or name == "dataset"
    return Value(tuple(map(str, words)), is_path)


def _short(text: str) -> str:
    """Return how a text begins, in the width of a terminal."""
    begins = re.split("[.:;] ", text.replace("``", ""))[0].rstrip(".")
    return textwrap.shorten(begins, 70, placeholder=" ...")
