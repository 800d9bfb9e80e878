"""An argparse parser that suggests the nearest name for an unknown flag, and types of values."""

import argparse
import json
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import NoReturn

from llama_recipes_local.errors import Problem, UsageError, refusal
from llama_recipes_local.messages import flag_for, nearest, unknown_flag
from llama_recipes_local.storage.names import check_possible
from llama_recipes_local.typed_words import read_words

QUOTES = "put a value with spaces in quotes"

# what llama-recipes, PEFT and transformers call what a command takes under another name
ELSEWHERE = {
    "adapter_name_or_path": "adapter",
    "adapter_path": "adapter",
    "base_model": "model_name",
    "lora_path": "adapter",
    "model_name_or_path": "model_name",
    "model_path": "model_name",
    "output": "out",
    "output_dir": "out",
    "output_path": "out",
    "peft_model": "adapter",
}


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviated flags, and suggests the nearest to an unknown one."""

    _asks_json = False

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse the words; exit with code 2 and the nearest name if a flag is unknown.

        Unknown flags are checked first: argparse would report a misspelt required flag as missing.
        """
        self._asks_json = asks_json(words)
        for word in words:
            if word == "--":
                break
            self._check_flag(word)
        parsed, unknown = self.parse_known_args(words)
        if unknown:
            flag = flag_for(unknown[0])
            if flag == "dataset" and "--prompts" in self._flags():
                flag = "prompts"  # its --dataset takes a name, not a file
            fix = f"did you mean --{flag} {unknown[0]}?" if f"--{flag}" in self._flags() else QUOTES
            self.error(f"unexpected argument {unknown[0]!r}; {fix}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, to standard output too if JSON was asked for.

        The usage, which argparse prints before it, fills a screen here.
        """
        fix = f"`{self.prog} --help` lists what it takes"
        if self._asks_json:
            print_json([Problem(message, "the command line cannot be read", fix)])
        self.exit(UsageError.EXIT_CODE, f"{self.prog}: error: {message}\n   {fix}\n")

    def parse_own(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse the parser's own flags among words that may hold any flag of ``finetuning.py``.

        The others are ``flags`` of the result, words without a flag are its ``arguments``. They
        are checked once the configurations that declare them are imported.
        """
        self._asks_json = asks_json(words)
        if {"-h", "--help"} & set(words):
            return self.parse(["--help"])
        arguments, flags = read_words(words)
        if "model_name" not in flags and "model" in flags:  # as other commands take it
            flags["model_name"] = flags.pop("model")
        for name in flags.keys() - {"output_dir"}:  # a flag of finetuning.py
            self._check_other_name(f"--{name}")
        mine: list[str] = []
        for action in self._actions:
            name = action.option_strings[-1].removeprefix("--") if action.option_strings else ""
            if name not in flags:
                continue
            value, further = flags.pop(name), (1 if action.nargs is None else action.nargs)
            if further == 0 and value is not True:  # a switch, and the word after it
                arguments, value = (*arguments, value), True
            values = [] if value is True else [value]
            if isinstance(further, int) and further > 1:  # as --compare A B
                values += arguments[: further - 1]
                arguments = arguments[further - 1 :]
                mine += [f"--{name}", *values]
            else:
                mine.append("=".join([f"--{name}", *values]))
        return argparse.Namespace(arguments=arguments, flags=flags, **vars(self.parse(mine)))

    def _check_flag(self, word: str) -> None:
        flag = word.split("=", 1)[0]
        # argparse takes a word with a dash and a space, or a negative number, for a value
        if not flag.startswith("-") or " " in word or _is_number(word):
            return
        known = self._flags()
        if flag in known:
            return
        self._check_other_name(flag)
        problem = unknown_flag(flag, [name.lstrip("-") for name in known])
        self.error("; ".join(filter(None, (problem.what, problem.fix))))

    def _check_other_name(self, flag: str) -> None:
        if (ours := f"--{ELSEWHERE.get(flag.lstrip('-'))}") in self._flags():
            self.error(f"unknown flag {flag}; here it is called {ours}")

    def _flags(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]


def asks_json(words: Sequence[str]) -> bool:
    """Return whether a command line asks for JSON."""
    return "--json" in words


def print_json(problems: Sequence[Problem]) -> None:
    """Print problems for a program, as commands with ``--json`` do."""
    print(json.dumps({"problems": list(map(asdict, problems))}, indent=2, ensure_ascii=False))


class Help(argparse.RawDescriptionHelpFormatter):
    """Fits the text around the flags to the terminal; indented lines, such as commands, stay."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        given = groupby(text.strip().splitlines(), lambda line: line[:1] in ("", " "))
        lines: list[str] = []
        for stays, group in given:
            lines += group if stays else textwrap.wrap(" ".join(group), width)
        return "\n".join(indent + line for line in lines)


@dataclass(frozen=True, eq=False)  # argparse hashes it
class one_of:
    """An argparse ``type`` that takes one of the names and suggests the nearest to another.

    Attributes:
        names: the names, or what returns them: then nothing is imported for a flag that is not
            given.
        slow: whether what returns them takes seconds to import.
    """

    names: Iterable[str] | Callable[[], Iterable[str]]
    slow: bool = False

    @property
    def known(self) -> list[str]:
        """The names."""
        return list(self.names() if callable(self.names) else self.names)

    def __call__(self, word: str) -> str:
        """Return the word, if it is one of the names."""
        known = self.known
        if word not in known:
            raise argparse.ArgumentTypeError(
                f"unknown name {word!r}{suggestion(word, known)} (choose from {', '.join(known)})"
            )
        return word


@dataclass(frozen=True, eq=False)  # argparse hashes it
class listed:
    """An argparse ``type`` of several names with commas between them; see ``one_of``.

    With ``action="extend"`` the flag may also be given several times.
    """

    names: Iterable[str] | Callable[[], Iterable[str]]

    def __call__(self, text: str) -> list[str]:
        """Return the words, if all of them are among the names."""
        check = one_of(self.names)
        return [check(word.strip()) for word in text.split(",")]


def number(kind: type[int] | type[float], above: float, most: float) -> Callable[[str], float]:
    """Return an argparse ``type`` that takes a number above ``above`` and at most ``most``."""

    def check(word: str) -> float:
        try:
            value = kind(word)
        except ValueError:
            value = math.nan
        if not above < value <= most:
            wanted = f"a number above {above}"
            if kind is int:
                wanted = f"an integer of at least {above + 1}"
            bound = "" if most == math.inf else f" and at most {most}"
            raise argparse.ArgumentTypeError(f"{word!r} is not {wanted}{bound}")
        return value

    return check


def integer(word: str) -> int | str:
    """Return the integer that a word means; any other word unchanged, for a check to report."""
    return int(word) if re.fullmatch("[+-]?[0-9]{1,18}", word) else word


def path(word: str) -> Path:
    """Return a word's path, as an argparse ``type``; an empty word, otherwise ".", is refused."""
    text(word)
    if problems := check_possible(word, "the path"):
        raise argparse.ArgumentTypeError(f"{problems[0].what}: {problems[0].why}")
    return Path(word)


def text(word: str) -> str:
    """Return a word as it is, as an argparse ``type`` that refuses an empty one."""
    if not word.strip():
        why = "it is empty, as a variable of the shell that is not set"
        raise argparse.ArgumentTypeError(f"{why}: give a value, or leave it out")
    return word


def read_typed(read: Callable[[], str]) -> str:
    """Return the text that ``read`` returns from standard input or a flag.

    Raises:
        UsageError: if it is in another encoding: depending on the locale, Python refuses such bytes
            or turns them into characters that no tokenizer accepts.
    """
    try:
        text = read()
        text.encode("utf-8")
    except UnicodeError as error:
        fix = "write it in UTF-8, for example with iconv -f ENCODING -t UTF-8"
        raise refusal("a prompt is not UTF-8", str(error), fix) from error
    return text


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean NAME?" for the nearest of the known names, or an empty string."""
    near = nearest(word, known)
    return f"; did you mean {near}?" if near else ""


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
