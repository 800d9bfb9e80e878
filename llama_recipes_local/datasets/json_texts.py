"""JSON texts in records: a cell of a table, or arguments of a tool call as OpenAI writes them."""

from typing import Any

from llama_recipes_local.errors import refusal
from llama_recipes_local.records.json_values import RepeatedKeyError, read_value

FIX = "write it as json.dumps does, or remove the record"


def read_json(text: str, what: str, expected: str = "JSON", fix: str = FIX) -> Any:
    """Return the value of a JSON text.

    Args:
        text: the text.
        what: names it in messages.
        expected: what the text should be.
        fix: what the user can do if it is not.

    Raises:
        UsageError: if it is not JSON, or an object in it has a key twice.
    """
    try:
        return read_value(text)
    except RepeatedKeyError as error:
        raise refusal(f"{what} cannot be read", str(error), "keep one of them") from error
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        why = f"{error}; it begins {text!r:.80}"
        raise refusal(f"{what} is text, not {expected}", why, fix) from error
