"""Reads records one at a time from csv, tsv and parquet files.

What cannot be used is a ``UsageError`` that names the file and the line or row.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from llama_recipes_local.errors import door, refusal
from llama_recipes_local.records.checked_values import Record, flawed
from llama_recipes_local.records.source import Source, unreadable
from llama_recipes_local.records.text_lines import LONGEST_LINE, text_lines, without_end

_DELIMITERS = (",", ";", "\t", "|")
PARQUET_ROWS = 1_000
PARQUET_BYTES = 1 << 18
_PLAIN = "write the file again with plain values, and a name of its own for each column and field"


def read_plain_tsv(source: Source, columns: Sequence[str]) -> Iterator[Record]:
    """Yield the lines of a file of tab-separated columns, which has no header and no quotes.

    A first line that is the columns' names is taken for a header and skipped.
    """
    for number, line in text_lines(source):
        cells = without_end(line).split("\t")
        where = f"line {number} of {source}"
        if len(cells) != len(columns):
            raise refusal(
                f"{where} has {_columns(len(cells))}",
                f"each line has {len(columns)}, separated by tabs: {', '.join(columns)}",
            )
        if number > 1 or cells != list(columns):
            yield where, dict(zip(columns, cells, strict=True))


def delimiter_of(source: Source, usual: str, longest: int = LONGEST_LINE) -> str:
    """Return what separates the cells of a file's header: the usual character, or another.

    Spreadsheets of many countries write ``;`` or tabs, and may say so in a first line ``sep=;``.
    """
    first = without_end(next((line for _, line in text_lines(source, longest)), ""))
    if _says_delimiter(first):
        return first[-1]
    unquoted = re.sub('"[^"]*"', "", first)
    return max((usual, *_DELIMITERS), key=unquoted.count)


def _says_delimiter(line: str) -> bool:
    return len(line) == len("sep=;") and line.lower().startswith("sep=")


def read_csv(
    source: Source,
    columns: Sequence[str] = (),
    delimiter: str = ",",
    longest: int = LONGEST_LINE,
    keep_flawed: bool = False,
) -> Iterator[Record]:
    """Yield the rows of a file whose header has the columns, and perhaps others.

    Args:
        source: what to read.
        columns: the columns that the header must have.
        delimiter: the character between two cells, unless the header shows another.
        longest: the most bytes of a line, and characters of a cell.
        keep_flawed: whether a row of too many or too few cells is a ``Flawed`` record.
    """
    # a NUL is no mistake of the user, but an error to the csv module before Python 3.11
    lines = (
        line.replace("\0", " ")
        for number, line in text_lines(source, longest)
        if number > 1 or not _says_delimiter(without_end(line))
    )
    delimiter = delimiter_of(source, delimiter, longest)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    rows = _rows_up_to(longest, reader)
    name = str(source)
    try:
        header = next(rows, [])
        check_columns(source, header, columns)
        _check_header(source, header)
        for row in rows:
            if row and len(row) == len(header):
                yield f"line {reader.line_num} of {name}", dict(zip(header, row))  # noqa: B905
            elif row:  # an empty line is not a row
                where = f"line {reader.line_num} of {name}"
                why = f"the header has {len(header)}"
                error = refusal(f"{where} has {_columns(len(row))}", why)
                if not keep_flawed:
                    raise error
                yield where, flawed(error)
    except csv.Error as broken:
        where = f"line {reader.line_num} of {name}"
        raise refusal(f"{where} is not CSV", str(broken), "fix its quotes") from broken


def _rows_up_to(longest: int, reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """Yield a csv reader's rows, with cells of up to ``longest`` characters.

    The csv module has one limit for the process: it is set while a row is read and restored after.
    """
    while True:
        before = csv.field_size_limit(longest)
        try:
            row = next(reader, None)
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        yield row


def read_parquet(source: Source, columns: Sequence[str] = ()) -> Iterator[Record]:
    """Yield the rows of a parquet file; if columns are named, no others are read."""
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        # with pre_buffer a row group of any size would be read at once
        with parquet.ParquetFile(source.path, buffer_size=PARQUET_BYTES, pre_buffer=False) as file:
            check_columns(source, file.schema_arrow.names, columns)
            _check_header(source, file.schema_arrow.names)
            before = 0
            for batch in file.iter_batches(PARQUET_ROWS, columns=list(columns) or None):
                where = f"rows {before + 1} to {before + len(batch)} of {source}"
                _check_utf_8(batch, where)
                with door(f"{where} cannot be read", _PLAIN):
                    rows = batch.to_pylist()
                for row, record in enumerate(rows, before + 1):
                    yield f"row {row} of {source}", _without_filled_in(record)
                before += len(batch)
    except UnicodeDecodeError as error:
        why = f"the file was written wrongly: {error}"
        fix = "write the file again, with its columns' names in UTF-8"
        raise refusal(f"{source} has a column whose name is not UTF-8", why, fix) from error
    except (pa.ArrowException, OSError) as error:
        raise unreadable(source, error) from error


def _without_filled_in(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record without the nulls in its columns' values.

    A column has the same fields in each row, so that one without a field has a null for it; TRL
    removes them too.
    """
    return {name: _pruned(value) for name, value in record.items()}


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _pruned(each) for name, each in value.items() if each is not None}
    return [_pruned(each) for each in value] if isinstance(value, list) else value


def check_columns(source: Source, found: Sequence[str], columns: Sequence[str]) -> None:
    """Refuse a table without one of the columns.

    Raises:
        UsageError: with the columns that were found.
    """
    missing = [column for column in columns if column not in found]
    if missing:
        raise refusal(
            f"{source} has no column {', '.join(missing)}",
            f"the columns found are {', '.join(found) or 'none'}",
            f"name its columns {', '.join(columns)}",
        )


def _check_header(source: Source, header: Sequence[str]) -> None:
    twice = [name for name, times in Counter(header).items() if name and times > 1]
    if twice:
        raise refusal(
            f"{source} has the column {', '.join(twice)} more than once",
            f"the columns found are {', '.join(header)}",
            "give each column a name of its own",
        )


def _check_utf_8(batch: Any, where: str) -> None:  # pyarrow has no types
    try:
        batch.validate(full=True)
    except ValueError as error:
        raise refusal(f"{where} are corrupt", str(error), "write the file again") from error


def _columns(number: int) -> str:
    return "1 column" if number == 1 else f"{number} columns"
