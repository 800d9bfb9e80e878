"""What a formatter takes from a record, and how a record that lacks it is refused."""

from llama_recipes_local.files.text_lines import refusal
from llama_recipes_local.files.values import Record, column_of


def text_of(record: Record, column: str) -> str:
    """Return a record's text in a column, as it is; nothing (null) is an empty text.

    Raises:
        UsageError: if the record lacks the column, or what is in it is no text.
    """
    where, values = record
    text = column_of(values, column, where)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise refusal(f"{column!r} in {where} is not text", f"it is {text!r:.80}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:  # JSON may escape half of a surrogate pair
            raise refusal(f"{column!r} in {where} is not Unicode text", str(error)) from error
    return text


def is_blank(text: str) -> bool:
    """Tell whether a text has nothing but white space."""
    return not text or text.isspace()
