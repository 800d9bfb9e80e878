"""``llama-recipes-local check``: checks files against lists, then by themselves."""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path, PurePosixPath

from llama_recipes_local.commands.check.compared_files import compare_files
from llama_recipes_local.commands.check.data_copy import check_records
from llama_recipes_local.commands.check.file_lists import (
    Expected,
    find_lists,
    no_list,
    noted_by_hf,
    read_list,
)
from llama_recipes_local.commands.check.model_copy import check_copy, is_model, usual_and_absent
from llama_recipes_local.commands.check.own_words import check_own
from llama_recipes_local.errors import Problem, UsageError, refusal
from llama_recipes_local.messages import amount, join_names, missing_path
from llama_recipes_local.model_folders.weight_files import check_ordinary
from llama_recipes_local.records.finding import files_below


@dataclass
class Checked:
    """What was found in a folder.

    Attributes:
        folder: the folder.
        kind: "model" or "data".
        files: how many files are in it.
        bytes: of them all.
        compared: names of the files that a list has a hash or a size of.
        lists: the lists.
        problems: what is wrong.
        notes: what need not be wrong.
    """

    folder: Path
    kind: str
    files: int
    bytes: int
    compared: list[str]
    lists: list[str]
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(args: argparse.Namespace) -> None:
    """Print what was found.

    Raises:
        UsageError: with all problems.
        SystemExit: with the same code, after JSON.
    """
    found = examine(args.folder.resolve(), args.list)
    if args.json:
        print(json.dumps(_as_json(found), indent=2, ensure_ascii=False))
        if found.problems:
            sys.exit(UsageError.EXIT_CODE)
        return
    for note in found.notes:
        print(f"--> {note}")
    if found.problems:
        raise UsageError(found.problems)
    print(f"{found.folder}: {found.files} files, {amount(found.bytes)}, no problem")


def examine(folder: Path, named_list: Path | None = None) -> Checked:
    """Return what is wrong with a folder.

    Raises:
        UsageError: if it is not a folder, or a list of its files cannot be read.
    """
    if not folder.is_dir():
        if folder.exists():
            raise refusal(f"{folder} is not a folder", "it is a file", "name its folder")
        raise UsageError([missing_path(folder, "name the folder that was copied here")])
    below = files_below(folder)
    expected = _expected(folder, named_list)
    compared = sorted({each.name for each in expected})
    kind = "model" if is_model(folder) or _names_model(compared) else "data"
    total = sum(path.stat().st_size for path in below)
    sources = list(dict.fromkeys(each.source for each in expected))
    found = Checked(folder, kind, len(below), total, compared, sources)
    wrong = compare_files(folder, expected)
    for path in below:
        name = path.relative_to(folder).as_posix()
        if name not in wrong and (own := _own(path, kind)):
            wrong[name] = own[0]
    found.problems = list(wrong.values())
    if not (wrong and sources):  # what a list finds explains what does not go together
        found.problems += _together(found, below, list(wrong))
    found.notes = list(_notes(found, below))
    return found


def _expected(folder: Path, named_list: Path | None) -> list[Expected]:
    lists = [*([named_list] if named_list else []), *find_lists(folder)]
    expected = [each for path in lists for each in read_list(path, folder)]
    return expected + noted_by_hf(folder)


def _names_model(names: Iterable[str]) -> bool:
    return any(name in ("config.json", "params.json") for name in names)


def _own(path: Path, kind: str) -> list[Problem]:
    """Return what a file says of itself."""
    return check_own(path) or (list(check_records(path)) if kind == "data" else [])


def _together(found: Checked, below: Iterable[Path], wrong: list[str]) -> Iterator[Problem]:
    """Yield what files say of each other, but not again what is wrong with those in ``wrong``."""
    folders = sorted({path.parent for path in below} | {found.folder})
    entries = (path for folder in folders for path in folder.iterdir() if not path.is_dir())
    problems = [each for path in entries for each in check_ordinary(path.parent, escape(path.name))]
    if found.kind == "model":
        problems += check_copy(found.folder)
    elif not found.files and not wrong:
        problems += [Problem(f"{found.folder} has no files", "nothing was copied", "copy it again")]
    named = [PurePosixPath(name).name for name in wrong]
    for problem in dict.fromkeys(problems):
        text = f"{problem.what} {problem.why}"
        if not any(_mentions(text, name) for name in named):
            missing = re.fullmatch(r".*/([^/]+) is missing", problem.what)
            named += [missing[1]] if missing else []
            yield problem


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-]|\.\w)", text) is not None


def _notes(found: Checked, below: Iterable[Path]) -> Iterator[str]:
    if found.lists:
        yield f"{len(found.compared)} files compared with {join_names(found.lists)}"
        names = {path.relative_to(found.folder).as_posix() for path in below}
        if more := sorted(names - set(found.compared) - set(found.lists)):
            yield f"in no list: {join_names(more)}"
    else:
        problem = no_list(found.folder)
        yield f"{problem.what}: {problem.why}; {problem.fix}"
    if found.kind == "model" and (absent := usual_and_absent(found.folder)):
        yield f"not there, which a model may do without: {join_names(absent)}"


def _as_json(found: Checked) -> dict[str, object]:
    problems = [vars(problem) for problem in found.problems]
    return {**vars(found), "folder": str(found.folder), "problems": problems}
