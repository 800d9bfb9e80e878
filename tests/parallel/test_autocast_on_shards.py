"""Quantised weights that FSDP2 has sharded, computed by autocast as on CUDA."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accumulated_gradients import gradients

from llama_recipes_local.models import precision
from llama_recipes_local.training import stepping

BATCHES = torch.arange(3, 323).view(4, 1, 80)
IN_BFLOAT16 = {"dtype": "bfloat16", "compute_dtype": "bfloat16"}


@pytest.fixture(autouse=True)
def _one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(autouse=True)
def _autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have steps computed as on CUDA."""
    monkeypatch.setattr(
        stepping, "compute_context", lambda model, _: precision._autocast(model, torch.bfloat16)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        {"quantization": "4bit"},
        {"quantization": "4bit", "use_dora": True},
        {"quantization": "4bit", "sharding_strategy": "NO_SHARD"},
        {"quantization": "8bit", "sharding_strategy": "NO_SHARD"},
        {"fp8": True, "sharding_strategy": "NO_SHARD"},
    ],
    ids=str,
)
def test_each_micro_batch_counts_in_its_own_step(tiny_model: Path, flags: dict[str, Any]) -> None:
    flags = flags | IN_BFLOAT16
    singly = gradients(tiny_model, flags, list(BATCHES.split(1)))
    in_pairs = gradients(tiny_model, flags, list(BATCHES.split(2)))
    for number, step in enumerate(in_pairs):
        first, second = singly[2 * number : 2 * number + 2]
        assert any(gradient.count_nonzero() for gradient in step)
        for ours, one, other in zip(step, first, second, strict=True):
            # the same numbers, and one float32 sum
            torch.testing.assert_close(ours, one + other, rtol=1e-5, atol=1e-9)
