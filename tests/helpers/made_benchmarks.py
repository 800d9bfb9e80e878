"""Small benchmarks of this project's own writing, in the layouts that the known ones have."""

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

LETTERS = "ABCD"
_THINGS = ("apples", "pencils", "stones", "tickets", "coins", "eggs")
_ENGLISH = "A box holds {} {}, and {} more are put into it. How many are in it then?"
_CHINESE = "盒子里有{}个球，又放进{}个。现在一共有多少个？"  # noqa: RUF001

Rows = list[dict[str, Any]]


def questions(subject: str, split: str, count: int, chinese: bool = False) -> Rows:
    """Return questions with four choices, their answers' letters in ``answer``."""
    draw = random.Random(f"{subject} {split}")
    rows: Rows = []
    for number in range(count):
        first, second = draw.randint(2, 60), draw.randint(2, 40)
        text = _CHINESE.format(first, second)
        if not chinese:
            text = _ENGLISH.format(first, draw.choice(_THINGS), second)
        right = first + second
        wrong = draw.sample([right - 10, right - 1, right + 1, right + 2, right + 10], 3)
        choices = [str(each) for each in draw.sample([right, *wrong], 4)]
        answer = LETTERS[choices.index(str(right))]
        blank = " " if number % 7 == 3 else ""  # lm-eval strips questions
        rows.append({"question": blank + text, "choices": choices, "answer": answer})
    return rows


def solutions(split: str, count: int) -> Rows:
    """Return questions with solutions in words, which end with ``#### `` and a number."""
    draw = random.Random(split)
    rows: Rows = []
    for _ in range(count):
        boxes, each, eaten = draw.randint(2, 12), draw.randint(2, 200), draw.randint(1, 3)
        total = boxes * each
        thing = draw.choice(_THINGS)
        question = f"Ann has {boxes} boxes of {each} {thing} and gives {eaten} away. What is left?"
        answer = f"There are {boxes} * {each} = <<{boxes}*{each}={total}>>{total} {thing}.\n"
        answer += f"{total - eaten} are left.\n#### {total - eaten:,}"
        rows.append({"question": question, "answer": answer})
    return rows


def hub_clone(folder: Path, subjects: dict[str, dict[str, Rows]], spread: bool = False) -> Path:
    """Write ``SUBJECT/SPLIT-00000-of-00001.parquet``, as clones of the Hub have it.

    Args:
        folder: where to.
        subjects: each subject's rows by split.
        spread: whether each choice has a column of its own, and answers are letters.
    """
    for subject, splits in subjects.items():
        (folder / subject).mkdir(parents=True)
        for split, rows in splits.items():
            made = [_spread(row) if spread else _numbered(row) for row in rows]
            table = pyarrow.Table.from_pylist(made)
            parquet.write_table(table, folder / subject / f"{split}-00000-of-00001.parquet")
    return folder


def archive(
    folder: Path, subjects: dict[str, dict[str, Rows]], columns: Sequence[str], ending: str = ""
) -> Path:
    """Write ``SPLIT/SUBJECT.csv``, as the authors' archives have it.

    Args:
        folder: where to.
        subjects: each subject's rows by split.
        columns: names of question and answer in the header; none for files without one.
        ending: of the names of files, before ``.csv``; ``{}`` is the split.
    """
    for subject, splits in subjects.items():
        for split, rows in splits.items():
            (folder / split).mkdir(parents=True, exist_ok=True)
            path = folder / split / f"{subject}{ending.format(split)}.csv"
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                if columns:
                    writer.writerow(["", columns[0], *LETTERS, columns[1]])
                for number, row in enumerate(rows):
                    cells = [row["question"], *row["choices"], row["answer"]]
                    writer.writerow([number, *cells] if columns else cells)
    return folder


def json_lines(path: Path, rows: Rows) -> Path:
    """Write a jsonl file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def _numbered(row: dict[str, Any]) -> dict[str, Any]:
    return row | ({"answer": LETTERS.index(row["answer"])} if "choices" in row else {})


def _spread(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "question": row["question"],
        **dict(zip(LETTERS, row["choices"], strict=True)),
        "answer": row["answer"],
    }
