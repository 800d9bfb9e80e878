"""Reads records from JSON files: an object per line, an array of objects, or one object of columns.

What cannot be used is a ``UsageError`` that names the file and the line or item.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import IO, Any

from llama_recipes_local.errors import UsageError, refusal
from llama_recipes_local.messages import join_names
from llama_recipes_local.records.checked_values import Record, flawed
from llama_recipes_local.records.json_values import Decoder, Repeated
from llama_recipes_local.records.source import Source
from llama_recipes_local.records.text_lines import (
    BYTE_ORDER_MARK,
    LONGEST_LINE,
    opened,
    text_lines,
    whole_text,
)

# A record with one column of turns looks like records in a wrapper, but is not.
TURN_COLUMNS = ("messages", "conversations", "conversation", "turns")
SPLIT_NAMES = {"train", "training", "validation", "valid", "val", "dev", "eval", "test"}
_MAYBE_SPLITS = re.compile(rf'\s*{{\s*"({"|".join(SPLIT_NAMES)})"\s*:\s*\[', re.IGNORECASE)
_BEGINNING = 4096
_MARK = BYTE_ORDER_MARK.encode()


def read_json(
    source: Source, longest: int = LONGEST_LINE, keep_flawed: bool = False
) -> Iterator[Record]:
    """Yield the records of a JSON file, in whichever form; its beginning shows which.

    A file that is one value is read at once: an array of objects, an object that wraps one
    (``{"data": [...]}``), or an object of columns (``{"text": [...], "label": [...]}``). Any other
    is read one line at a time.

    Args:
        source: what to read.
        longest: the most bytes of a line, if the file has an object per line.
        keep_flawed: whether a line or item that is no object is a ``Flawed`` record.
    """
    if _is_one_value(source, longest):
        return read_json_value(source, keep_flawed)
    return read_json_lines(source, longest, keep_flawed)


def read_json_lines(
    source: Source, longest: int = LONGEST_LINE, keep_flawed: bool = False
) -> Iterator[Record]:
    """Yield the objects of a file with one per line; empty lines are skipped."""
    name = str(source)
    decoder = Decoder()
    decode = decoder.decode
    for number, line in text_lines(source, longest):
        where = f"line {number} of {name}"
        try:
            value = decode(line)
        except (ValueError, RecursionError) as error:
            if not line.strip():
                continue
            if isinstance(error, ValueError):
                _refuse_layout(source, number, line)
            problem = _not_json(error, where)
            if not keep_flawed:
                raise problem from error
            value = flawed(problem)
        else:
            if type(value) is not dict:
                _refuse_layout(source, number, line)
            value = _object(value, decoder, where, keep_flawed)
        yield where, value


def read_json_value(source: Source, keep_flawed: bool = False) -> Iterator[Record]:
    """Yield the objects of a file that is one JSON value; the file is read at once."""
    decoder = Decoder()
    text = whole_text(source)
    try:
        value = decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise _not_json(error, str(source)) from error
    _refuse_repeated(value, str(source))
    for number, item in enumerate(_items(value, source), 1):
        where = f"item {number} of {source}"
        yield where, _object(item, decoder, where, keep_flawed)


def split_names(source: Source) -> list[str]:
    """Return the names of the splits that a JSON file holds the rows of; none if it is one."""
    try:
        with opened(source) as file:
            begin = file.read(_BEGINNING).decode(errors="ignore")
        if not _MAYBE_SPLITS.match(begin.removeprefix(BYTE_ORDER_MARK)):
            return []
        value = json.loads(whole_text(source))
    except (ValueError, RecursionError):  # reported where it is read
        return []
    return list(value) if isinstance(value, dict) and _are_splits(value) else []


def _are_splits(columns: Mapping[str, Any]) -> bool:
    if len(columns) < 2 or not {name.lower() for name in columns} <= SPLIT_NAMES:
        return False
    rows = columns.values()
    return all(isinstance(each, list) and all(isinstance(x, dict) for x in each) for each in rows)


def _items(value: object, source: Source) -> list[Any]:
    if isinstance(value, list):
        return value
    columns = _checked_object(value, str(source))
    if source.split:
        return columns[source.split]
    lengths = {len(column) if isinstance(column, list) else -1 for column in columns.values()}
    if -1 in lengths or not lengths or _is_conversation(columns):
        return [columns]
    if len(columns) == 1:
        (only,) = columns.values()
        if all(isinstance(item, dict) for item in only):
            return only
    _refuse_splits(columns, source)
    if len(lengths) > 1:
        found = ", ".join(f"{name} has {len(column)}" for name, column in columns.items())
        raise refusal(f"{source} has columns of different lengths", found)
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _refuse_splits(columns: Mapping[str, Any], source: Source) -> None:
    """Refuse a file that holds the rows of several splits, each under its name."""
    if not _are_splits(columns):
        return
    name = source.path.name
    raise refusal(
        f"{source} holds several splits: {join_names(columns)}",
        "which is for training is shown by train and one of validation, val, dev, eval or test",
        "write each to a file of its name, and name their folder: "
        + "; ".join(f"jq -c '.{split}[]' {name} > {split}.jsonl" for split in columns),
    )


def _is_conversation(columns: Mapping[str, Any]) -> bool:
    return len(columns) == 1 and next(iter(columns)) in TURN_COLUMNS


def _is_one_value(source: Source, longest: int) -> bool:
    """Return whether a file is one JSON value; if not, it has one per line, or is neither."""
    with opened(source) as file:
        lines = (line.removeprefix(_MARK).strip() for line in _bounded_lines(file, longest))
        begin = next(filter(None, lines), b"")
        if begin.startswith(b"["):
            return True
        if not begin.startswith(b"{") or _names_lines(source):
            return False
        try:
            json.loads(begin)
        except (ValueError, RecursionError):
            return True  # an object over several lines, or half of one
        return not any(lines)


def _bounded_lines(file: IO[bytes], longest: int) -> Iterator[bytes]:
    return iter(lambda: file.readline(longest + 1), b"")


def _names_lines(source: Source) -> bool:
    return any(suffix in source.name.lower() for suffix in (".jsonl", ".ndjson"))


def _not_json(error: Exception, where: str) -> UsageError:
    """Return the error for a text that cannot be parsed; ``where`` is its line, or its file."""
    if isinstance(error, RecursionError):
        return refusal(f"{where} is not a record", "it is nested too deeply")
    fix = "fix it, or download the file again if it is cut off"
    if not isinstance(error, json.JSONDecodeError):  # a number of thousands of digits
        return refusal(f"{where} is not JSON", str(error), fix)
    place = f"column {error.colno}"
    if not where.startswith("line "):
        place = f"line {error.lineno} {place}"
    return refusal(f"{where} is not JSON", f"{error.msg}: {place}", fix)


def _refuse_layout(source: Source, number: int, line: str) -> None:
    """Refuse what is JSON but not one object per line, with the command that writes it so."""
    text, rows = line.strip(), f"{shlex.quote(source.path.name)} > rows.jsonl"
    why = "it is read one line at a time, one object per line"
    if number > 1:
        return
    if text.startswith("["):
        raise refusal(f"{source} is a JSON array", why, f"jq -c '.[]' {rows}")
    if text.endswith("},") and _is_json(text[:-1]):
        fix = f"sed 's/,[[:space:]]*$//' {rows}"
        raise refusal(f"{source} has commas between its objects", why, fix)
    if text.startswith("{") and text.endswith(("{", "[", ",")):
        raise refusal(f"{source} has objects of several lines", why, f"jq -c . {rows}")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _object(
    value: object, decoder: Decoder, where: str, keep_flawed: bool = False
) -> Mapping[str, Any]:
    try:
        found = _checked_object(value, where)
        key = decoder.repeated_key(value)
        if key is not None:
            raise _repeated(key, where)
    except UsageError as error:
        if not keep_flawed:
            raise
        return flawed(error)
    return found


def _checked_object(value: object, where: str) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise refusal(f"{where} is not a JSON object", f"it is {value!r:.80}")


def _refuse_repeated(value: object, where: str) -> None:
    """Refuse a file that is one object, with a key twice."""
    if isinstance(value, Repeated):
        raise _repeated(value.key, where)


def _repeated(key: str, where: str) -> UsageError:
    return refusal(
        f"{where} has the key {key!r} more than once",
        "only the last of its values would be read",
        "keep one of them, or rename the others",
    )
