"""What is refused with ``--fp8``, and what is not."""

from typing import Any

import pytest
import torch

from llama_recipes_local.preflight.checks import find_problems
from llama_recipes_local.preflight.fp8_rules import check_fp8_device, check_fp8_weights
from llama_recipes_local.run.resolution import resolve

PEFT = {"use_peft": True, "fp8": True}
CHECKS = (check_fp8_device, check_fp8_weights)


def pretend(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA A100")
    monkeypatch.setattr("llama_recipes_local.models.precision.device_type", lambda: "cuda")


@pytest.mark.parametrize(
    "flags",
    [
        PEFT,
        PEFT | {"use_rslora": True, "init_lora_weights": "gaussian"},
        PEFT | {"peft_method": "prefix"},
        PEFT | {"pure_bf16": True},
        PEFT | {"enable_fsdp": True, "sharding_strategy": "NO_SHARD"},
        {"fp8": True, "train_only": "last:1"},
        {"fp8": True},
        {"fp8": True, "enable_fsdp": True},
        {"fp8": True, "enable_fsdp": True, "sharding_strategy": "NO_SHARD"},
        {"use_fp16": True, "quantization": "4bit", "use_peft": True},
    ],
)
def test_what_works_has_no_problem(flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (9, 0))
    assert find_problems(resolve(flags), CHECKS) == []


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (PEFT | {"quantization": "4bit"}, "--fp8 with --quantization 4bit"),
        (PEFT | {"enable_fsdp": True}, "--fp8 with frozen weights that are sharded"),
        (
            {"fp8": True, "freeze_layers": True, "enable_fsdp": True},
            "--fp8 with frozen weights that are sharded",
        ),
        (PEFT | {"use_fp16": True}, "--fp8 with float16"),
        (PEFT | {"dtype": "float32", "mixed_precision": False}, "--fp8 with float32"),
        (PEFT | {"use_dora": True}, "--fp8 with --use_dora"),
        (PEFT | {"init_lora_weights": "pissa"}, "--fp8 with --init_lora_weights pissa"),
    ],
)
def test_what_cannot_be_is_named(
    flags: dict[str, Any], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, (9, 0))
    (problem,) = find_problems(resolve(flags), CHECKS)
    assert problem.what == what


def test_a_device_that_does_not_multiply_in_fp8_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (8, 0))
    (problem,) = find_problems(resolve(PEFT), CHECKS)
    assert problem.what == "--fp8 on this GPU"
    assert "NVIDIA A100 (compute capability 8.0)" in problem.why


def test_a_cpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (problem,) = find_problems(resolve(PEFT), CHECKS)
    assert problem.what == "--fp8 on CPU"
