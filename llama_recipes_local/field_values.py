"""Converts the values of flags to the types of their fields, and sets the fields."""

import enum
import math
import re
import sys
import types
import typing
from typing import Any

from llama_recipes_local.fields import LibraryType, dtype_of, field_names, type_hints


def set_field(config: object, name: str, value: object) -> None:
    """Set ``config.name`` to ``value``, converted to the field's declared type.

    Raises:
        ValueError: if the value cannot mean that type; the message says what was expected.
    """
    cls: type = type(config)
    setattr(config, name, convert(value, type_hints(cls).get(name, Any)))


def update_config(config: object, /, **kwargs: object) -> None:
    """Set a configuration's fields from flags, as upstream's function does, in the fields' types.

    Args:
        config: a configuration, or a list or tuple of them.
        **kwargs: ``field=value``, or ``"config.field": value`` for one configuration alone. Flags
            that belong to none of the given configurations are left out.

    Raises:
        ValueError: if a value cannot mean its field's type.
    """
    if isinstance(config, (list, tuple)):
        for each in config:
            update_config(each, **kwargs)
        return
    names = set(field_names(config))
    for flag, value in kwargs.items():
        owner, _, name = flag.rpartition(".")
        if name in names and owner in ("", type(config).__name__):
            try:
                set_field(config, name, value)
            except ValueError as error:
                raise ValueError(f"--{flag} {value}: {error}") from error


def convert(value: object, expected: object) -> Any:
    """Convert a flag's value, its text or what Python passed, to a declared type.

    Raises:
        ValueError: if the value cannot mean that type.
    """
    alternatives = _alternatives(expected)
    if (value is None or value == "None") and type(None) in alternatives:
        return None
    wanted = [kind for kind in alternatives if kind is not type(None)]
    for kind in wanted:
        try:
            return _convert_to(value, kind)
        except (ValueError, KeyError):
            continue
    raise ValueError(f"expected {' or '.join(_describe(kind) for kind in wanted)}")


def _alternatives(expected: object) -> tuple[Any, ...]:
    if typing.get_origin(expected) in (typing.Union, types.UnionType):
        return typing.get_args(expected)
    return (expected,)


def _convert_to(value: object, kind: object) -> Any:
    if kind is Any:
        return value
    if typing.get_origin(kind) is list:
        return _to_list(value)
    if isinstance(kind, LibraryType):
        return kind.word(value)
    if _is_dtype(kind):
        return value if isinstance(value, kind) else dtype_of(str(value))  # type: ignore[arg-type]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return value if isinstance(value, kind) else kind[str(value).rpartition(".")[2]]
    if kind is bool:
        return _to_bool(value)
    if kind is str:
        return _to_str(value)
    return _to_number(value, kind)


def _is_dtype(kind: object) -> bool:
    torch = sys.modules.get("torch")  # without it, nothing is its dtype
    return torch is not None and kind is torch.dtype


def _to_list(value: object) -> list[str] | str:
    if value == "all-linear":  # PEFT's own word for every linear layer but the head
        return value
    if isinstance(value, str):
        listed = value.strip()
        if listed[:1] + listed[-1:] in ("[]", "()"):  # as Python writes a list
            listed = listed[1:-1]
        parts = (part.strip().strip("\"'") for part in listed.split(","))
        return [part for part in parts if part]
    if isinstance(value, (list, tuple)):
        return [str(part) for part in value]
    raise ValueError


def _to_bool(value: object) -> bool:
    words = {"true": True, "false": False, "1": True, "0": False}
    return words[str(value).lower()]


def _to_str(value: object) -> str:
    # a flag without a value is True; a folder may be called 2024
    if isinstance(value, (bool, type(None), list, tuple, dict)):
        raise ValueError
    return str(value)


def _to_number(value: object, kind: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    if kind is int and isinstance(value, int):
        return value  # a float would round it from 2**53 on
    if kind is int and isinstance(value, str) and re.fullmatch("[+-]?[0-9]+", value):
        return int(value)
    number = float(value)
    if not math.isfinite(number) or (kind is int and not number.is_integer()):
        raise ValueError
    return int(number) if kind is int else number


_DESCRIBED: dict[object, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
}


def _describe(kind: object) -> str:
    if isinstance(kind, LibraryType):
        return (
            "a dtype such as bfloat16"
            if kind.name == "dtype"
            else "one of " + ", ".join(kind.words)
        )
    if typing.get_origin(kind) is list:
        return "a comma-separated list"
    if _is_dtype(kind):
        return "a dtype such as bfloat16"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "one of " + ", ".join(kind.__members__)
    return _DESCRIBED.get(kind, str(kind))
