"""What a record is, and checks of its values that all readers of records share."""

from collections.abc import Mapping, Sequence
from typing import Any

from llama_recipes_local.errors import Problem, UsageError, refusal

# The csv module's default limit, so upstream could not train on a longer cell.
LONGEST_TEXT = 131_072

# A record's place as the user knows it ("line 7 of FILE"), and its values by column.
Record = tuple[str, Mapping[str, Any]]


class Flawed(dict[str, Any]):
    """The place of a record that could not be read, where the next one could."""

    problems: Sequence[Problem] = ()


def flawed(error: UsageError) -> Flawed:
    """Return what stands for a record that could not be read."""
    record = Flawed()
    record.problems = error.problems
    return record


def refuse_flawed(record: Record) -> None:
    """Refuse a record that could not be read.

    Raises:
        UsageError: with the reason.
    """
    if isinstance(record[1], Flawed):
        raise UsageError(record[1].problems)


def column_of(record: Mapping[str, Any], column: str, where: str) -> Any:
    """Return the value of a column; ``where`` is the record's place for messages.

    Raises:
        UsageError: if the record has no such column.
    """
    if column not in record:
        found = ", ".join(record) or "none"
        raise refusal(f"{where} has no {column!r}", f"its keys are {found}")
    return record[column]


def checked_text(value: object, what: str) -> str:
    """Return a text with each NUL replaced by a space, as the Hub's own loader of C4_200M does.

    Raises:
        UsageError: if a CSV file cannot hold it; ``what`` names it.
    """
    if not isinstance(value, str):
        raise refusal(f"{what} is not text", f"it is {value!r:.80}")
    if len(value) > LONGEST_TEXT:
        why = f"the limit for a cell of a CSV file is {LONGEST_TEXT}"
        raise refusal(f"{what} has {len(value)} characters", why, "shorten it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON may escape half of a surrogate pair
        raise refusal(f"{what} cannot be written as UTF-8", str(error)) from error
    return value.replace("\0", " ")
