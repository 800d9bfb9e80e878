"""Sets a field of a configuration from what a flag said, in the field's own type."""

import enum
import math
import types
import typing
from typing import Any

import torch

DTYPES = {
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
    "float32": torch.float32,
    "fp32": torch.float32,
    "uint8": torch.uint8,
}


def field_names(config: type | object) -> list[str]:
    """Return the names of a configuration's fields, in the order they were declared."""
    cls = config if isinstance(config, type) else type(config)
    return list(typing.get_type_hints(cls))


def set_field(config: object, name: str, value: Any) -> None:
    """Set ``config.name`` to ``value``, converted to the field's declared type.

    Raises:
        ValueError: if the value cannot mean that type; the message says what was expected.
    """
    setattr(config, name, convert(value, typing.get_type_hints(type(config)).get(name, Any)))


def update_config(config: Any, **kwargs: Any) -> None:
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


def convert(value: Any, expected: Any) -> Any:
    """Convert a flag's value, as fire parsed it, to a declared type.

    Raises:
        ValueError: if the value cannot mean that type.
    """
    alternatives = _alternatives(expected)
    if value is None and type(None) in alternatives:
        return None
    wanted = [kind for kind in alternatives if kind is not type(None)]
    for kind in wanted:
        try:
            return _convert_to(value, kind)
        except (ValueError, KeyError):
            continue
    raise ValueError(f"expected {' or '.join(_describe(kind) for kind in wanted)}")


def _alternatives(expected: Any) -> tuple[Any, ...]:
    if typing.get_origin(expected) in (typing.Union, types.UnionType):
        return typing.get_args(expected)
    return (expected,)


def _convert_to(value: Any, kind: Any) -> Any:
    if kind is Any:
        return value
    if typing.get_origin(kind) is list:
        return _to_list(value)
    if kind is torch.dtype:
        return (
            value if isinstance(value, torch.dtype) else DTYPES[str(value).removeprefix("torch.")]
        )
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return value if isinstance(value, kind) else kind[str(value).rpartition(".")[2]]
    if kind is bool:
        return _to_bool(value)
    if kind is str:
        return _to_str(value)
    return _to_number(value, kind)


def _to_list(value: Any) -> list[str] | str:
    if value == "all-linear":  # PEFT's own word for every linear layer but the head
        return value
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    if isinstance(value, (list, tuple)):
        return [str(part) for part in value]
    raise ValueError


def _to_bool(value: Any) -> bool:
    words = {"true": True, "false": False, "1": True, "0": False}
    return words[str(value).lower()]


def _to_str(value: Any) -> str:
    # fire reads a folder called 2024 as a number, and a flag without a value as True
    if isinstance(value, (bool, type(None), list, tuple, dict)):
        raise ValueError
    return str(value)


def _to_number(value: Any, kind: type) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    if kind is int and isinstance(value, int):
        return value  # a float would round it from 2**53 on
    number = float(value)
    if not math.isfinite(number) or (kind is int and not number.is_integer()):
        raise ValueError
    return int(number) if kind is int else number


def _describe(kind: Any) -> str:
    if typing.get_origin(kind) is list:
        return "a comma-separated list"
    if kind is torch.dtype:
        return "a dtype such as bfloat16"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "one of " + ", ".join(kind.__members__)
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return names.get(kind, str(kind))
