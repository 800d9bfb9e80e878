"""What a formatter takes from a record, and how a record that lacks it is refused."""

from llama_recipes_local.errors import refusal
from llama_recipes_local.records.values import Record, column_of


def text_of(record: Record, column: str) -> str:
    """Return a record's text in a column; see ``as_text``.

    Raises:
        UsageError: if the record lacks the column, or what is in it is no text.
    """
    where, values = record
    return as_text(column_of(values, column, where), f"{column!r} in {where}")


def as_text(value: object, what: str) -> str:
    """Return a text as it is; nothing (null) is an empty text. ``what`` names it.

    Raises:
        UsageError: if it is no text, or none that UTF-8 can hold.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise refusal(f"{what} is not text", f"it is {value!r:.80}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:  # JSON may escape half of a surrogate pair
            raise refusal(f"{what} is not Unicode text", str(error)) from error
    return value


def is_blank(text: str) -> bool:
    """Tell whether a text has nothing but white space."""
    return not text or text.isspace()
