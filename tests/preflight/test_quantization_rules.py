"""Quantised weights and settings that are incompatible with them."""

from typing import Any

import pytest

from llama_recipes_local.preflight.checks import QUANTIZATION, check_values, find_problems
from llama_recipes_local.run.resolution import resolve

SHARDED = {"use_peft": True, "enable_fsdp": True}
FOUR = {"quantization": "4bit"}


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"quantization": False},
        {"use_peft": True, **FOUR, "quant_type": "nf4", "use_double_quant": True},
        {"use_peft": True, **FOUR, "quant_storage": "uint8", "compute_dtype": "bfloat16"},
        {"use_peft": True, "quantization": "8bit"},
        {"use_peft": True, "quantization": True},
        SHARDED | FOUR,
        SHARDED | FOUR | {"quant_storage": "uint8"},
        SHARDED | FOUR | {"sharding_strategy": "HYBRID_SHARD", "fsdp_cpu_offload": True},
        SHARDED | FOUR | {"sharding_strategy": "NO_SHARD"},
        SHARDED | {"quantization": "8bit", "sharding_strategy": "NO_SHARD"},
    ],
)
def test_compatible_settings_have_no_problem(flags: dict[str, Any]) -> None:
    assert find_problems(resolve(flags), (check_values, *QUANTIZATION)) == []


@pytest.mark.parametrize(
    ("flags", "what", "fix"),
    [
        (
            {"quantization": "2bit", "use_peft": True},
            "unknown --quantization 2bit",
            "use --quantization 4bit or 8bit",
        ),
        (
            {"use_peft": True, **FOUR, "quant_type": "nf8"},
            "unknown --quant_type nf8",
            "use --quant_type nf4 or fp4",
        ),
        (FOUR, "--quantization 4bit without --use_peft", "add --use_peft"),
        ({"quantization": True}, "--quantization True without --use_peft", "add --use_peft"),
        (
            {"use_double_quant": True},
            "--use_double_quant without --quantization 4bit",
            "add --quantization 4bit",
        ),
        (
            {"quantization_config.quant_type": "nf4", "use_peft": True, "quantization": "8bit"},
            "--quant_type without --quantization 4bit",
            "add --quantization 4bit",
        ),
        (
            SHARDED | {"quantization": "8bit"},
            "--quantization 8bit with weights that are sharded",
            "--sharding_strategy NO_SHARD",
        ),
        (
            SHARDED | {"quantization": True, "sharding_strategy": "HYBRID_SHARD"},
            "--quantization 8bit with weights that are sharded",
            "use --quantization 4bit",
        ),
    ],
)
def test_incompatible_settings(flags: dict[str, Any], what: str, fix: str) -> None:
    (problem,) = find_problems(resolve(flags), (check_values, *QUANTIZATION))
    assert problem.what.startswith(what)
    assert fix in problem.fix
