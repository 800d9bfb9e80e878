"""Reads rows from local files, and says what is wrong with a file before anything is loaded."""

import csv
import json
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from llama_recipes_local.errors import Problem

Row = dict[str, str]


def read_csv(path: Path) -> Iterator[Row]:
    """Yield the rows of a CSV file with a header; UTF-8, with or without a byte order mark."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file)


def read_json(path: Path) -> list[dict[str, Any]]:
    """Return the records of a JSON file that holds a list of objects."""
    return json.loads(path.read_text("utf-8-sig"))


def check_csv(path: Path, columns: Collection[str], flag: str) -> list[Problem]:
    """Return what is wrong with a CSV file: missing, empty, without a column, or not UTF-8.

    Args:
        path: the file, absolute.
        columns: the columns it must have.
        flag: the flag that names another file.
    """
    problem = check_file(path, flag)
    if problem:
        return [problem]
    try:
        rows = read_csv(path)
        first = next(rows, None)
        # to the end, for a byte that is not UTF-8 may be in the last row
        whole = sum(_is_whole(row, columns) for row in chain([first or {}], rows))
    except (UnicodeDecodeError, csv.Error) as error:
        return [Problem(f"{path} cannot be read as CSV", str(error), "save it as CSV in UTF-8")]
    if first is None:
        return [_empty(path, flag)]
    missing = [column for column in columns if column not in first]
    if missing:
        return [
            Problem(
                f"{path} has no column {', '.join(missing)}",
                f"the columns found are {', '.join(map(str, first))}",
                f"give the file the header {','.join(columns)}, or name another with {flag}",
            )
        ]
    if not whole:
        return [
            Problem(
                f"{path} has no row with {' and '.join(columns)}",
                "rows in which one of them is blank are left out, and nothing would be left",
                f"fill them in, or name another file with {flag}",
            )
        ]
    return []


def check_json(path: Path, keys: Collection[str], flag: str) -> list[Problem]:
    """Return what is wrong with a JSON list: missing, empty, not JSON, or a record without a key.

    Args:
        path: the file, absolute.
        keys: the keys that each record must have.
        flag: the flag that names another file.
    """
    problem = check_file(path, flag)
    if problem:
        return [problem]
    try:
        records = read_json(path)
    except ValueError as error:
        return [Problem(f"{path} is not JSON", str(error), f"mend it, or name another with {flag}")]
    if not records:
        return [_empty(path, flag)]
    if not isinstance(records, list):
        return [
            Problem(
                f"{path} is not a JSON list",
                f"each record of the list is an object with the keys {', '.join(keys)}",
                f"put its records between [ and ], or name another with {flag}",
            )
        ]
    for index, record in enumerate(records):
        if not isinstance(record, dict) or any(record.get(key) is None for key in keys):
            return [
                Problem(
                    f"record {index} of {path} lacks one of the keys {', '.join(keys)}",
                    "each record of the list is an object with these keys",
                    f"mend the record, or name another file with {flag}",
                )
            ]
    return []


def check_file(path: Path, flag: str) -> Problem | None:
    """Return the problem with a path that is no file, or an empty one; None if there is none."""
    if not path.is_file():
        return Problem(f"{path} is no file", _neighbours(path), f"put it there, or name it: {flag}")
    if path.stat().st_size == 0:
        return _empty(path, flag)
    return None


def _is_whole(row: Row, columns: Collection[str]) -> bool:
    return all((row.get(column) or "").strip() for column in columns)


def _empty(path: Path, flag: str) -> Problem:
    return Problem(f"{path} has no rows", "there is nothing to train on", f"name another: {flag}")


def _neighbours(path: Path) -> str:
    """Say what there is where the path was looked for."""
    if not path.parent.is_dir():
        return f"its folder {path.parent} does not exist"
    names = sorted(entry.name for entry in path.parent.iterdir())[:10]
    return f"its folder holds {', '.join(names) or 'nothing'}"
