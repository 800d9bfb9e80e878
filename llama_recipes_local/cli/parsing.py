"""argparse, with the nearest name offered for a word it does not know."""

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """A parser whose flags are written in full, and which knows the nearest to a wrong one."""

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse the words; exit with code 2 and the nearest name if one is wrong.

        Unknown flags are refused before argparse speaks, which would complain of a required flag
        that was only misspelt.
        """
        for word in words:
            if word == "--":
                break
            self._check_flag(word)
        parsed, unknown = self.parse_known_args(words)
        if unknown:
            self.error(f"{unknown[0]!r} belongs to no flag; a value with spaces goes in quotes")
        return parsed

    def _check_flag(self, word: str) -> None:
        flag = word.split("=", 1)[0]
        # argparse takes a word with a dash and a space, or a negative number, for a value
        if not flag.startswith("-") or " " in word or _is_number(word):
            return
        known = [name for action in self._actions for name in action.option_strings]
        if flag not in known:
            self._refuse(flag, known)

    def _refuse(self, flag: str, known: list[str]) -> NoReturn:
        self.error(f"there is no flag {flag}{suggestion(flag, known)}")


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """Return an argparse ``type`` that takes one of the names and offers the nearest to another."""
    known = list(names)

    def check(word: str) -> str:
        if word not in known:
            raise argparse.ArgumentTypeError(
                f"there is no {word!r}{suggestion(word, known)} (there are: {', '.join(known)})"
            )
        return word

    return check


def number(kind: type[int] | type[float], above: float, most: float) -> Callable[[str], float]:
    """Return an argparse ``type`` that takes a number greater than ``above``, ``most`` at most."""

    def check(word: str) -> float:
        try:
            value = kind(word)
        except ValueError:
            value = math.nan
        if not above < value <= most:
            least = (
                f"whole number of {above + 1} or more" if kind is int else f"number above {above}"
            )
            bound = "" if most == math.inf else f" and at most {most}"
            raise argparse.ArgumentTypeError(f"{word!r} is no {least}{bound}")
        return value

    return check


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean NAME?" for the nearest of the known names, or nothing."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
