"""What may be wrong with any flag's value by itself: it is none of the choices, or out of range."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from llama_recipes_local.errors import Problem


def choice(flag: str, value: Any, choices: Iterable[Any]) -> list[Problem]:
    """Return what is wrong with a flag whose value is one of some choices."""
    names = [name for name in choices if isinstance(name, str) and name]
    if value in choices:
        return []
    near = get_close_matches(str(value), names, n=1)
    fix = f"did you mean --{flag} {near[0]}?" if near else f"choose one: --{flag} {names[0]}"
    return [Problem(f"--{flag} {value} does not exist", f"there are {', '.join(names)}", fix)]


@dataclass(frozen=True)
class Range:
    """Which numbers a flag takes.

    Attributes:
        words: the range, as in "it must be ...".
        holds: tells whether a number is in it.
    """

    words: str
    holds: Callable[[float], bool]


ABOVE_0 = Range("above 0", lambda number: number > 0)
AT_LEAST_0 = Range("0 or more", lambda number: number >= 0)
AT_LEAST_1 = Range("1 or more", lambda number: number >= 1)
BITS_64 = Range("a number of 64 bits", lambda number: -(2**63) <= number < 2**63)


def out_of_range(config: Any, ranges: Mapping[str, Range]) -> list[Problem]:
    """Return a problem for each of a configuration's fields that is not in its range."""
    return [
        Problem(
            f"--{name} is {getattr(config, name)}",
            f"it must be {bound.words}",
            f"give it {bound.words}",
        )
        for name, bound in ranges.items()
        if not bound.holds(getattr(config, name))
    ]
