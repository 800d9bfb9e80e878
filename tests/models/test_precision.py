"""In which dtype weights rest and in which they are multiplied."""

import contextlib
from pathlib import Path

import pytest
import torch
import transformers

from llama_recipes_local import configs
from llama_recipes_local.models import precision
from llama_recipes_local.models.precision import compute_context, weight_dtype


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("bfloat16", torch.bfloat16),
        ("bf16", torch.bfloat16),
        ("float16", torch.float16),
        ("float32", torch.float32),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_given_dtype_is_used(
    monkeypatch: pytest.MonkeyPatch, device: str, dtype: str, expected: torch.dtype
) -> None:
    monkeypatch.setattr(precision, "device_type", lambda: device)
    assert weight_dtype(configs.train_config(dtype=dtype)) is expected


@pytest.mark.parametrize(
    ("device", "use_fp16", "use_peft", "expected"),
    [
        ("cpu", False, True, torch.float32),
        ("cuda", False, True, torch.bfloat16),
        ("cuda", False, False, torch.bfloat16),
        ("cuda", True, True, torch.float16),
        # a gradient scaler needs float32 weights to update
        ("cuda", True, False, torch.float32),
    ],
)
def test_auto_follows_the_device_and_the_run(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    use_fp16: bool,
    use_peft: bool,
    expected: torch.dtype,
) -> None:
    monkeypatch.setattr(precision, "device_type", lambda: device)
    config = configs.train_config(use_fp16=use_fp16, use_peft=use_peft)
    assert weight_dtype(config) is expected


def test_on_cpu_nothing_is_cast(tiny_model: Path) -> None:
    model = transformers.LlamaForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    context = compute_context(model, configs.train_config(mixed_precision=True))
    assert isinstance(context, contextlib.nullcontext)
