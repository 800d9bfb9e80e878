"""What a record is, and the checks of its values that every reader of records shares."""

from collections.abc import Mapping
from typing import Any

from llama_recipes_local.errors import refusal

# The csv module reads no longer cell by itself, so upstream could not train on a longer one.
LONGEST_TEXT = 131_072

# What the user may know a record by ("line 7 of FILE"), and its values by column.
Record = tuple[str, Mapping[str, Any]]


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
