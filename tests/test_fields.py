"""Which values a field's type takes, and what they are converted to."""

from dataclasses import dataclass
from typing import Any, List, Optional  # noqa: UP035 (upstream writes its types so)

import pytest
import torch
from torch.distributed.fsdp import ShardingStrategy

from llama_recipes_local import configs
from llama_recipes_local.field_values import convert, set_field
from llama_recipes_local.fields import field_names


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (True, bool, True),
        ("False", bool, False),
        ("true", bool, True),
        (1, bool, True),
        (0, bool, False),
        (3, int, 3),
        (3.0, int, 3),
        ("3", int, 3),
        ("1e3", int, 1000),
        (3, float, 3.0),
        ("1e-4", float, 1e-4),
        ("text", str, "text"),
        (2024, str, "2024"),
        (None, Optional[str], None),  # noqa: UP045
        ("text", str | None, "text"),
        ("q_proj, v_proj", list[str], ["q_proj", "v_proj"]),
        ("q_proj", List[str], ["q_proj"]),  # noqa: UP006
        (["q_proj", "v_proj"], list[str], ["q_proj", "v_proj"]),
        (("a", "b"), Optional[List[str]], ["a", "b"]),  # noqa: UP006, UP045
        ("all-linear", list[str], "all-linear"),
        ("bfloat16", torch.dtype, torch.bfloat16),
        ("torch.float16", torch.dtype, torch.float16),
        ("fp32", torch.dtype, torch.float32),
        (torch.uint8, torch.dtype, torch.uint8),
        ("NO_SHARD", ShardingStrategy, ShardingStrategy.NO_SHARD),
        ("ShardingStrategy.FULL_SHARD", ShardingStrategy, ShardingStrategy.FULL_SHARD),
        (ShardingStrategy.NO_SHARD, ShardingStrategy, ShardingStrategy.NO_SHARD),
        ([1], Any, [1]),
    ],
)
def test_a_value_is_converted_to_its_fields_type(value: Any, kind: Any, expected: Any) -> None:
    converted = convert(value, kind)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("maybe", bool, "expected true or false"),
        (2, bool, "expected true or false"),
        (None, bool, "expected true or false"),
        ("four", int, "expected an integer"),
        (1.5, int, "expected an integer"),
        (True, int, "expected an integer"),
        ("nan", int, "expected an integer"),
        ("inf", int, "expected an integer"),
        ("small", float, "expected a number"),
        (True, float, "expected a number"),
        ("nan", float, "expected a number"),
        (float("inf"), float, "expected a number"),
        (None, float, "expected a number"),
        ([1], float, "expected a number"),
        (True, str, "expected a string"),
        (None, str, "expected a string"),
        (["a"], str, "expected a string"),
        (True, str | None, "expected a string"),
        (5, list[str], "expected a comma-separated list"),
        ("float8", torch.dtype, "expected a dtype such as bfloat16"),
        ("SHARD", ShardingStrategy, "expected one of FULL_SHARD, SHARD_GRAD_OP, NO_SHARD"),
        ([], ShardingStrategy, "expected one of FULL_SHARD"),
    ],
)
def test_a_value_of_another_type_is_refused(value: Any, kind: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(value, kind)


def test_a_union_takes_the_first_type_that_fits() -> None:
    assert convert("8bit", bool | str) == "8bit"
    assert convert("true", bool | str) is True
    with pytest.raises(ValueError, match="expected an integer or true or false"):
        convert("x", int | bool | None)


@dataclass
class parent:
    first: int = 1


@dataclass
class child(parent):
    second: float = 0.0


def test_field_names_of_a_class_and_of_an_instance() -> None:
    assert set(field_names(child)) == {"first", "second"}
    assert field_names(child()) == field_names(child)


def test_set_field_converts() -> None:
    config = child()
    set_field(config, "second", "2")
    set_field(config, "first", 7.0)
    assert repr(config) == "child(first=7, second=2.0)"  # with their types


def test_upstreams_dtypes_are_named_on_the_command_line() -> None:
    config = configs.quantization_config()
    set_field(config, "quant_storage", "uint8")
    assert config.quant_storage is torch.uint8
