"""The result of one examination: a line of text, with a fix if something is wrong."""

import enum
from dataclasses import dataclass


class State(enum.Enum):
    """How a part of the machine is; the value is what is printed."""

    WORKS = "ok"
    ABSENT = "--"
    """Not there, and not needed for everything."""
    DOUBTFUL = "!"
    """Works, but slowly, or not for long."""
    BROKEN = "FAIL"


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        name: the part of the machine, in a word or two.
        state: how it is.
        text: what was found.
        fix: the command or setting that mends it; empty if there is nothing to mend.
    """

    name: str
    state: State
    text: str
    fix: str = ""
