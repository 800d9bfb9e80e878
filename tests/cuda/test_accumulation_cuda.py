"""Micro-batches on CUDA: a step's gradient is the sum of theirs, with nothing left for the next."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accumulated_gradients import gradients

from llama_recipes_local import configs, parallel

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
BATCHES = torch.arange(3, 163).view(2, 1, 80)


@pytest.fixture(autouse=True)
def _process_group(one_rank: None) -> Iterator[None]:
    parallel.setup()
    yield
    parallel.cleanup()


def summed(folder: Path, flags: dict[str, Any], steps: list[torch.Tensor]) -> torch.Tensor:
    """Return the sum of the steps' gradients, all of a step one after another."""
    policy, _ = parallel.get_policies(configs.fsdp_config(), 0)
    by_step = gradients(folder, flags, steps, policy)
    return torch.stack([torch.cat([g.flatten() for g in step]) for step in by_step]).sum(0)


@pytest.mark.parametrize("flags", [{}, {"quantization": "4bit"}], ids=str)
def test_two_micro_batches_are_the_sum_of_two_steps(
    tiny_model: Path, flags: dict[str, Any]
) -> None:
    together = summed(tiny_model, flags, [BATCHES])
    singly = summed(tiny_model, flags, list(BATCHES.split(1)))
    # the same bfloat16 products; a gradient that came a step late would be half of them
    assert float((together - singly).norm() / singly.norm()) < 1e-3
