"""Words of a command line as they were typed, before fire reads them as Python.

``finetuning.main`` and the commands that accept its flags use this. fire would read ``run#1`` as
``run``, ``2024_11_27`` as a number and ``a,b`` as a tuple. Here a flag's text is kept until the
type of its field decides what it means.
"""

import re
import sys
from collections.abc import Sequence
from typing import Any


class Typed(str):
    """The text of a flag as it was typed; a caller in Python passes values."""

    __slots__ = ()


Flags = dict[str, Any]
SETTINGS = ("config", "train_config.config", "preset", "train_config.preset")
"""Flags that name many settings at once."""


def read_words(words: Sequence[str]) -> tuple[tuple[Typed, ...], Flags]:
    """Split the words of a command line into flags and words without a flag, as fire does.

    Returns:
        The words without a flag; then the text of each flag by its name without dashes, or True
        for a flag without a text. If a flag is given twice, the last one counts; a flag of
        ``SETTINGS`` then has a list of all its texts, so that none is dropped silently.
    """
    if "--" in words:  # what comes after the last one are flags of fire's own
        words = words[: len(words) - 1 - list(reversed(words)).index("--")]
    stray: list[Typed] = []
    pairs: list[tuple[str, Any]] = []
    is_open = False  # whether the last flag may have a text
    for word in words:
        if _is_flag(word):
            name, equals, text = word.lstrip("-").partition("=")
            pairs.append((name.replace("-", "_"), Typed(text) if equals else True))
            is_open = not equals
        elif is_open and word != "-":
            pairs[-1] = (pairs[-1][0], Typed(word))
            is_open = False
        else:
            stray.append(Typed(word))
            is_open = False
    flags: Flags = dict(pairs)
    for name in flags.keys() & set(SETTINGS):
        texts = list(dict.fromkeys(text for each, text in pairs if each == name))
        flags[name] = texts if len(texts) > 1 else texts[0]
    return tuple(stray), flags


def as_typed(arguments: tuple[Any, ...], flags: Flags) -> tuple[tuple[Any, ...], Flags]:
    """Return the arguments and flags that fire passed on, as they stand on the command line.

    fire turns a flag without a value into the text True, and drops what follows a single ``-``.
    Values that do not come from this process's command line are returned as they are.
    """
    if not any(isinstance(value, Typed) for value in (*arguments, *flags.values())):
        return arguments, flags
    stray, read = read_words(sys.argv[1:])
    # of --nouse_peft fire makes use_peft
    names = {*read, *(name.removeprefix("no") for name in read)}
    return (stray, read) if flags.keys() <= names else (arguments, flags)


def _is_flag(word: str) -> bool:
    return word.startswith("--") or re.match("-[a-zA-Z]", word) is not None
