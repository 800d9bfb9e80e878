"""Reads records one at a time from tsv, csv, json and parquet files.

What cannot be used is a ``UsageError`` that names the file and the line, row or item.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llama_recipes_local.files.text_lines import (
    Source,
    refusal,
    text_lines,
    unreadable,
    without_end,
)

# The csv module reads no longer cell, so a longer one could be written but not trained on.
LONGEST_TEXT = 131_072
PARQUET_ROWS = 1_000
PARQUET_BYTES = 1 << 18

# What the user may know a record by ("line 7 of FILE"), and its values by column.
Record = tuple[str, Mapping[str, Any]]


def read_tsv(source: Source, columns: Sequence[str]) -> Iterator[Record]:
    """Yield the lines of a file of tab-separated columns, which has no header and no quotes.

    A first line that is the columns' names is taken for a header and left out.
    """
    for number, line in text_lines(source):
        cells = without_end(line).split("\t")
        where = f"line {number} of {source}"
        if len(cells) != len(columns):
            raise refusal(
                f"{where} has {_columns(len(cells))}",
                f"each line has {len(columns)} with a tab between: {', '.join(columns)}",
            )
        if number > 1 or cells != list(columns):
            yield where, dict(zip(columns, cells, strict=True))


def read_csv(source: Source, columns: Sequence[str]) -> Iterator[Record]:
    """Yield the rows of a CSV file whose header has the columns, and perhaps others."""
    # a NUL is no error of the user's, but one to the csv module before Python 3.11
    lines = (line.replace("\0", " ") for _, line in text_lines(source))
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, [])
        check_columns(source, header, columns)
        for row in reader:
            where = f"line {reader.line_num} of {source}"
            if row and len(row) != len(header):
                raise refusal(f"{where} has {_columns(len(row))}", f"the header has {len(header)}")
            if row:  # an empty line is no row
                yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        where = f"line {reader.line_num} of {source}"
        raise refusal(f"{where} is not CSV", str(error), "mend its quotes") from error


def read_json_lines(source: Source) -> Iterator[Record]:
    """Yield the objects of a file that has one a line; empty lines are passed over."""
    for number, line in text_lines(source):
        where = f"line {number} of {source}"
        if number == 1 and line.lstrip().startswith("["):
            raise refusal(
                f"{source} is a JSON array",
                "it is read one line at a time, an object each",
                f"jq -c '.[]' {source.path.name} > rows.jsonl",
            )
        if line.strip():
            yield where, _object(_loads(line, where), where)


def read_json_array(source: Source) -> Iterator[Record]:
    """Yield the objects of a file that is one JSON array; the file is read whole."""
    text = "".join(line for _, line in text_lines(source))
    for number, value in enumerate(_loads(text, str(source)), 1):
        where = f"item {number} of {source}"
        yield where, _object(value, where)


def read_parquet(source: Source, columns: Sequence[str]) -> Iterator[Record]:
    """Yield the rows of a parquet file, of which no columns but these are read."""
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        # with pre_buffer a row group, of any size, would be read whole
        with parquet.ParquetFile(source.path, buffer_size=PARQUET_BYTES, pre_buffer=False) as file:
            check_columns(source, file.schema_arrow.names, columns)
            before = 0
            for batch in file.iter_batches(PARQUET_ROWS, columns=list(columns)):
                _check_utf_8(batch, f"rows {before + 1} to {before + len(batch)} of {source}")
                for row, record in enumerate(batch.to_pylist(), before + 1):
                    yield f"row {row} of {source}", record
                before += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(source, error) from error


def check_columns(source: Source, found: Sequence[str], columns: Sequence[str]) -> None:
    """Refuse a table that lacks one of the columns.

    Raises:
        UsageError: with the columns that were found.
    """
    lacking = [column for column in columns if column not in found]
    if lacking:
        raise refusal(
            f"{source} has no column {', '.join(lacking)}",
            f"the columns found are {', '.join(found) or 'none'}",
            f"name its columns {', '.join(columns)}",
        )


def column_of(record: Mapping[str, Any], column: str, where: str) -> Any:
    """Return the value of a column; ``where`` is what the user knows the record by.

    Raises:
        UsageError: if the record lacks it.
    """
    if column not in record:
        found = ", ".join(record) or "none"
        raise refusal(f"{where} has no {column!r}", f"its keys are {found}")
    return record[column]


def checked_text(value: object, what: str) -> str:
    """Return a text in which each NUL is a space, as in the Hub's own loader of C4_200M.

    Raises:
        UsageError: if it is not a text that a CSV file can hold; ``what`` names it.
    """
    if not isinstance(value, str):
        raise refusal(f"{what} is not text", f"it is {value!r:.80}")
    if len(value) > LONGEST_TEXT:
        why = f"a cell of a CSV file is read up to {LONGEST_TEXT}"
        raise refusal(f"{what} has {len(value)} characters", why, "shorten it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON may escape half of a surrogate pair
        raise refusal(f"{what} cannot be written as UTF-8", str(error)) from error
    return value.replace("\0", " ")


def _loads(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno} " if error.lineno > 1 else ""
        why = f"{error.msg}: {line}column {error.colno}"
        mend = "mend it, or download the file again if it is cut off"
        raise refusal(f"{where} is not JSON", why, mend) from error
    except RecursionError as error:
        raise refusal(f"{where} is not a record", "it is nested too deeply") from error


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise refusal(f"{where} is not a JSON object", f"it is {value!r:.80}")
    return value


def _check_utf_8(batch: Any, where: str) -> None:
    try:
        batch.validate(full=True)
    except ValueError as error:
        raise refusal(f"{where} are damaged", str(error), "write the file again") from error


def _columns(number: int) -> str:
    return "1 column" if number == 1 else f"{number} columns"
