"""JSON as it is written: an object that has a key twice is refused, where ``json`` keeps the last.

``json_records`` reads files with it, and data sets the JSON texts in their records.
"""

import json
from typing import Any


class Repeated(dict[str, Any]):
    """An object with a key that it has more than once; it has the last value, as ``json`` reads it.

    Attributes:
        key: the first such key.
    """

    key = ""


class RepeatedKeyError(ValueError):
    """A JSON text has an object with a key more than once."""


class Decoder:
    """Reads JSON values, and knows which objects have a key more than once."""

    def __init__(self) -> None:
        self._any = False
        self.decode = json.JSONDecoder(object_pairs_hook=self._object).decode

    def repeated_key(self, value: object) -> str | None:
        """Return the first key that a decoded value, or one in it, has twice; None for none."""
        return _repeated_key(value) if self._any else None

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        keys = [key for key, _ in pairs]
        repeated = Repeated(found)
        repeated.key = next(key for key in keys if keys.count(key) > 1)
        self._any = True
        return repeated


def read_value(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: if it is not JSON, or an object in it has a key twice.
        RecursionError: if it is nested too deeply.
    """
    decoder = Decoder()
    value = decoder.decode(text)
    key = decoder.repeated_key(value)
    if key is not None:
        raise RepeatedKeyError(f"the key {key!r} is there more than once")
    return value


def _repeated_key(value: object) -> str | None:
    if isinstance(value, Repeated):
        return value.key
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = (_repeated_key(each) for each in inner)
    return next((key for key in found if key is not None), None)
