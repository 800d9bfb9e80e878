"""Builds the two grammar files from JFLEG and C4_200M, as the script of upstream's guide does.

The training file has JFLEG's validation split and the first examples of C4_200M, the validation
file JFLEG's test split. The same inputs give the files that llama-recipes publishes, byte for byte.
"""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TextIO

from llama_recipes_local.commands.prepare.grammar import spacing as spacings
from llama_recipes_local.commands.prepare.grammar.c4_200m import find_sources, read_examples
from llama_recipes_local.commands.prepare.grammar.command import TRAINING_FILE, VALIDATION_FILE
from llama_recipes_local.commands.prepare.grammar.jfleg import (
    TEST,
    VALIDATION,
    find_splits,
    read_split,
)
from llama_recipes_local.commands.prepare.grammar.published_csv import csv_line, published_csv
from llama_recipes_local.errors import Problem, UsageError, refusal, refuse
from llama_recipes_local.records.source import Source
from llama_recipes_local.storage import data_root

DEFAULT_EXAMPLES = 10_000
JFLEG = "JFLEG"
C4_200M = "C4_200M"

Pair = tuple[str, str]


@dataclass
class BuiltFile:
    """A file that was written.

    Attributes:
        path: its absolute path.
        rows: the number of rows by the data set that they come from, without the header.
        blank: skipped pairs, of which one or both texts are empty.
        read: the files it was built from, in order.
    """

    path: Path
    rows: dict[str, int] = field(default_factory=dict)
    blank: int = 0
    read: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = ", ".join(f"{rows} from {name}" for name, rows in self.rows.items())
        total = sum(self.rows.values())
        line = f"{self.path}: {total} rows ({parts}), {self.blank} blank pairs skipped"
        return "\n".join([line, *(f"   read {name}" for name in self.read)])


@dataclass(frozen=True)
class Summary:
    """What ``build_grammar`` did.

    Attributes:
        training: the training file.
        validation: the validation file.
        spacing: the mode of the spacing corrections.
    """

    training: BuiltFile
    validation: BuiltFile
    spacing: str

    def __str__(self) -> str:
        number = len(spacings.corrections(self.spacing))
        return f"{self.training}\n{self.validation}\nspacing {self.spacing}: {number} corrections"


def build_grammar(
    out: Path,
    jfleg: Path | None,
    c4_200m: Path | None,
    num_c4: int = DEFAULT_EXAMPLES,
    spacing: str = spacings.PUBLISHED,
    *,
    overwrite: bool = False,
) -> Summary:
    """Write the training and the validation file into a folder, both or neither.

    Args:
        out: the folder, made if it is missing. Relative paths are below the data root.
        jfleg: the folder with JFLEG's two splits.
        c4_200m: the folder with C4_200M, or a file of it; None uses JFLEG alone.
        num_c4: the number of examples from the start of C4_200M, blank ones included.
        spacing: the mode of the spacing corrections, ``published`` or ``clean``.
        overwrite: whether existing files are replaced.

    Raises:
        UsageError: with every problem of the arguments and folders, or else with the first record
            of each part that cannot be used; nothing is written then.
    """
    out = data_root.resolve(out)
    problems = [*_folder_problems(out, overwrite), *_spacing_problems(spacing)]
    splits: dict[str, list[Path]] = {}
    sources: list[Source] = []
    with _collected(problems):
        splits = _find_jfleg(jfleg, c4_200m)
    with _collected(problems):
        sources = _find_c4(c4_200m, num_c4)
    refuse(problems)
    training = BuiltFile(out / TRAINING_FILE)
    validation = BuiltFile(out / VALIDATION_FILE)
    out.mkdir(parents=True, exist_ok=True)
    with published_csv(training.path) as train, published_csv(validation.path) as evaluate:
        with _collected(problems):
            _write(train, training, JFLEG, _jfleg(splits[VALIDATION], training), spacing)
        with _collected(problems):
            if sources:
                _write(train, training, C4_200M, _c4(sources, num_c4, training), spacing)
        with _collected(problems):
            _write(evaluate, validation, JFLEG, _jfleg(splits[TEST], validation), spacing)
        refuse(problems)
    return Summary(training, validation, spacing)


@contextmanager
def _collected(problems: list[Problem]) -> Iterator[None]:
    """Collect the problems of the block instead of stopping at them."""
    try:
        yield
    except UsageError as error:
        problems += error.problems


def _folder_problems(out: Path, overwrite: bool) -> list[Problem]:
    existing = next(folder for folder in (out, *out.parents) if folder.exists())
    fix = "name another folder: --out DIR"
    if not existing.is_dir():
        return [Problem(f"{existing} is a file", "the data set is a folder", fix)]
    if not os.access(existing, os.W_OK):
        return [Problem(f"{existing} is not writable", "its permissions do not allow it", fix)]
    there = [out / name for name in (TRAINING_FILE, VALIDATION_FILE) if (out / name).exists()]
    if overwrite:
        return []
    why = "a file is only overwritten with --overwrite"
    return [Problem(f"{path} exists", why, f"add --overwrite, or {fix}") for path in there]


def _spacing_problems(spacing: str) -> list[Problem]:
    if spacing in spacings.MODES:
        return []
    fix = " or ".join(f"--spacing {mode}" for mode in spacings.MODES)
    return [Problem(f"--spacing {spacing}", "unknown mode", fix)]


def _find_jfleg(jfleg: Path | None, c4_200m: Path | None) -> dict[str, list[Path]]:
    if jfleg is None:
        given = "only --c4_200m is given" if c4_200m else "neither --jfleg nor --c4_200m is given"
        why = "the validation file is built from JFLEG's test split"
        raise refusal(given, why, "--jfleg DIR")
    return find_splits(_absolute(jfleg))


def _find_c4(c4_200m: Path | None, num_c4: int) -> list[Source]:
    if c4_200m is None:
        return []
    problems: list[Problem] = []
    sources: list[Source] = []
    if num_c4 < 1:
        why = "it must be at least 1"
        problems.append(Problem(f"--num_c4 {num_c4}", why, "leave out --c4_200m to use none"))
    with _collected(problems):
        sources = find_sources(_absolute(c4_200m))
    refuse(problems)
    return sources


def _absolute(path: Path) -> Path:
    # links are not resolved: in the Hub's cache only the link has the file's name
    return data_root.data_root() / path.expanduser()


def _jfleg(split: list[Path], built: BuiltFile) -> Iterator[Pair]:
    """Yield each sentence with each of its corrections."""
    built.read += map(str, split)
    for sentence, corrections in read_split(split):
        for correction in corrections:
            yield sentence, correction


def _c4(sources: list[Source], number: int, built: BuiltFile) -> Iterator[Pair]:
    """Yield the first examples of the sources together."""
    taken = 0
    for source in sources:
        built.read.append(str(source))
        with closing(read_examples(source)) as examples:
            try:
                for pair in islice(examples, number - taken):
                    taken += 1
                    yield pair
            except UsageError as error:
                raise UsageError([_or_fewer(each, taken) for each in error.problems]) from error
        if taken == number:
            return
    fix = f"--num_c4 {taken}" if taken else "leave out --c4_200m"
    named = ", ".join(map(str, sources))
    raise refusal(f"{named} has {taken} examples", f"--num_c4 asks for {number}", fix)


def _or_fewer(problem: Problem, taken: int) -> Problem:
    if taken == 0:
        return problem
    return problem.or_else(f"use the {taken} examples before it: --num_c4 {taken}")


def _write(file: TextIO, built: BuiltFile, name: str, pairs: Iterator[Pair], spacing: str) -> None:
    """Write the pairs with their spacing corrected, skip blank ones, and count both."""
    rows = blank = 0
    for pair in pairs:
        first, second = (spacings.correct(text, spacing) for text in pair)
        if first and second:  # white space alone is not blank, as in the guide's script
            file.write(csv_line(first, second))
            rows += 1
        else:
            blank += 1
    if rows == 0:
        why = f"all of its {blank} pairs are blank" if blank else "its files have no rows"
        raise refusal(f"{name} has no row for {built.path.name}", why, "download it again")
    built.rows[name] = rows
    built.blank += blank
