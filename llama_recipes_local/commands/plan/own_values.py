"""Checks the values of the command's own flags, and reports them with all other problems."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from llama_recipes_local.errors import Problem
from llama_recipes_local.program import command


@dataclass(frozen=True)
class Refused:
    """A value that cannot be used.

    Attributes:
        word: as it was typed.
        why: it cannot be used.
        instead: the value that other flags are checked with.
    """

    word: str
    why: str
    instead: object


def reported(check: Callable[[str], object], instead: object = None) -> Callable[[str], object]:
    """Return an argparse ``type`` that does not end the program where ``check`` does."""

    def read(word: str) -> object:
        try:
            return check(word)
        except argparse.ArgumentTypeError as error:
            return Refused(word, str(error), instead)

    return read


def own_problems(args: argparse.Namespace) -> list[Problem]:
    """Return what is wrong with the command's own flags, and leave it out of them."""
    found, fix = [], f"see `{command('plan', '--help')}`"
    for name, value in list(vars(args).items()):
        if isinstance(value, Refused):
            setattr(args, name, value.instead)
            found.append(Problem(f"--{name} {value.word or repr('')}", value.why, fix))
    return found
