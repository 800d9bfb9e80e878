"""Finds a benchmark's files in a local folder, in the layouts that it is published in.

A file is ``SUBJECT/SPLIT-00000-of-00001.parquet`` as in clones of the Hub, or where these are not
there ``all/SPLIT-00000-of-00001.parquet``, whose rows name their subjects; ``SPLIT/SUBJECT.csv`` or
``SPLIT/SUBJECT_SPLIT.csv`` as in the authors' archives, or ``SPLIT.jsonl``.
"""

import csv
import re
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_recipes_local.benchmark_tasks.tasks import LETTERS, Task
from llama_recipes_local.errors import Problem, door, refusal, refuse
from llama_recipes_local.messages import join_names
from llama_recipes_local.records.any_format import Record, format_of, records
from llama_recipes_local.records.finding import describe_files, files_below, pointer_problems
from llama_recipes_local.storage.hashing import contents_hash

_PART = re.compile(r"-\d+-of-\d+$")
_ALL, _SUBJECT = "all", "subject"
_SPLITS = {"dev": "dev", "val": "val", "validation": "val", "test": "test", "train": "train"}


@dataclass(frozen=True)
class Item:
    """A question.

    Attributes:
        question: its text.
        choices: four of them, or none.
        answer: the letter of the right one, or the text of the solution.
    """

    question: str
    choices: tuple[str, ...]
    answer: str


class BenchmarkFiles:
    """The files of a benchmark in a folder.

    Attributes:
        subjects: the subjects whose measured part is there, in the benchmark's order.
        missing: the others.
    """

    def __init__(self, task: Task, folder: Path) -> None:
        """Find the files.

        Raises:
            UsageError: if none is there, or a part twice.
        """
        self._task, self._folder = task, folder
        fix = f"--benchmark_path DIR: {task.published}"
        if not folder.is_dir():
            raise refusal(
                f"--benchmark_path {folder} is not a folder",
                "the benchmark is read from local files" if folder.exists() else "it is not there",
                fix,
            )
        below = files_below(folder)
        self._files = self._found(below)
        _refuse_two_layouts(self._files)
        self._together: dict[tuple[str, str], list[Record]] = {}
        if all(subject == _ALL for subject, _ in self._files):
            self._together = self._of_all()
        there = self._together or self._files
        self.subjects = [name for name in task.subjects if (name, task.split) in there]
        self.missing = [name for name in task.subjects if name not in self.subjects]
        if not self.subjects:
            packed = [path for path in below if path.suffix in (".zip", ".tar", ".7z")]
            if packed and packed[0].suffix == ".zip":
                place = shlex.quote(str(packed[0]))
                fix = f"unpack it: unzip {place} -d {shlex.quote(str(packed[0].with_suffix('')))}"
            why = f"it has no {task.split} part: {describe_files(folder)}"
            raise refusal(f"--benchmark_path {folder} is not {task.title}", why, fix)
        refuse(pointer_problems([path for paths in self._files.values() for path in paths]))

    def items(self, subject: str, split: str) -> list[Item]:
        """Return a part's questions in order.

        Raises:
            UsageError: if a file cannot be read, or a row is not a question.
        """
        if self._together:
            rows = self._together[subject, split]
        else:
            rows = [row for path in self._files[subject, split] for row in self._rows(path)]
        return [self._item(where, row) for where, row in rows]

    def check_examples(self, shots: int) -> list[Problem]:
        """Return a problem if a subject has fewer examples than a prompt is to have."""
        if not shots:
            return []
        split = self._task.examples
        few = [
            subject
            for subject in self.subjects
            if (subject, split) not in (self._together or self._files)
            or len(self.items(subject, split)) < shots
        ]
        if not few:
            return []
        named = "" if few == ["main"] else f": {join_names(few)}"
        return [
            Problem(
                f"{self._task.title} with {shots} examples in a prompt",
                f"the {split} part has fewer{named}",
                f"copy the {split} part too, or --num_fewshot 0",
            )
        ]

    def hashes(self) -> dict[str, str]:
        """Return the sha256 of each file, by its path in the folder."""
        paths = sorted(path for paths in self._files.values() for path in paths)
        return {path.relative_to(self._folder).as_posix(): contents_hash(path) for path in paths}

    def _found(self, below: list[Path]) -> dict[tuple[str, str], list[Path]]:
        """Return the files by subject and part."""
        known, found = self._task.subjects, defaultdict(list)
        for path in below:
            if not format_of(path.name):
                continue
            stem, above = _PART.sub("", path.name.partition(".")[0]), path.parent.name
            if stem in _SPLITS:  # SUBJECT/SPLIT, or of a benchmark without subjects SPLIT alone
                subject, split = above, _SPLITS[stem]
                if "main" in known:
                    subject = "" if above == "socratic" else "main"
            elif above in _SPLITS:
                subject, split = stem.removesuffix(f"_{above}"), _SPLITS[above]
            else:
                continue
            if subject in known or subject == _ALL:
                found[subject, split].append(path)
        named = any(subject != _ALL for subject, _ in found)  # then the others are the same again
        return {key: paths for key, paths in found.items() if not (named and key[0] == _ALL)}

    def _of_all(self) -> dict[tuple[str, str], list[Record]]:
        """Return the rows of files that hold all subjects, by subject and part.

        Raises:
            UsageError: if a row names no subject of the benchmark.
        """
        found = defaultdict(list)
        for (_, split), paths in self._files.items():
            for where, row in (row for path in paths for row in self._rows(path)):
                if row.get(_SUBJECT) not in list(self._task.subjects):  # it may be of any type
                    what = f"{where} is of no subject of {self._task.title}"
                    why = f"its {_SUBJECT} is {row.get(_SUBJECT)!r:.80}"
                    raise refusal(what, why, f"--benchmark_path DIR: {self._task.published}")
                found[str(row[_SUBJECT]), split].append((where, row))
        return dict(found)

    def _rows(self, path: Path) -> Iterator[Record]:
        if not self._task.headers and format_of(path.name) == "csv":
            return _without_header(path, self._task)
        return records(path)

    def _item(self, where: str, row: Mapping[str, Any]) -> Item:
        """Return a row as a question.

        Raises:
            UsageError: if the row is not one.
        """
        question, answer = (row.get(name) for name in self._task.columns)
        choices = row.get("choices") or [row.get(letter) for letter in LETTERS]
        if not self._task.has_choices:
            choices = []
        elif type(answer) is int and 0 <= answer < len(LETTERS):
            answer = LETTERS[answer]
        missing = not str(question or "").strip() or not str(answer or "").strip()
        if self._task.has_choices:
            missing |= len(choices) != len(LETTERS) or None in choices
            missing |= answer not in [*LETTERS]
        if missing:
            wanted = [*self._task.columns, *(LETTERS if self._task.has_choices else "")]
            raise refusal(
                f"{where} is no question of {self._task.title}",
                f"it needs {', '.join(wanted)}, and has {row!r:.200}",
                f"--benchmark_path DIR: {self._task.published}",
            )
        return Item(str(question), tuple(map(str, choices)), str(answer))


def _without_header(path: Path, task: Task) -> Iterator[Record]:
    """Yield the rows of a csv file of question, choices and answer, each with its place."""
    columns = [task.columns[0], *LETTERS, task.columns[1]]
    with (
        door(f"{path} cannot be read", "copy it again"),
        path.open(encoding="utf-8-sig", newline="") as file,
    ):
        for number, cells in enumerate(csv.reader(file), 1):
            if number > 1 or cells != columns:
                yield f"row {number} of {path}", dict(zip(columns, cells, strict=False))


def _refuse_two_layouts(files: dict[tuple[str, str], list[Path]]) -> None:
    """Refuse a part that is there in two layouts, for example as parquet and as csv.

    Raises:
        UsageError: if there is such a part.
    """
    for (_, split), paths in files.items():
        stems = {(path.parent, _PART.sub("", path.name.partition(".")[0])) for path in paths}
        if len(stems) > 1 or len({format_of(path.name) for path in paths}) > 1:
            raise refusal(
                f"the {split} part is there twice: {join_names(str(path) for path in paths)}",
                "its questions would be counted twice",
                "name the folder of one of them: --benchmark_path DIR",
            )
