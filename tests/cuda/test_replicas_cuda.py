"""Gradients of replicas that are averaged in float32 on a CUDA device, by nccl."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from llama_recipes_local.parallel.replicas import AT_ONCE, average_in_float32

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SIZE, LAYERS = 4096, 24


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """Be the only rank of a group as ``setup`` makes it."""
    store = dist.FileStore(str(tmp_path / "store"), 1)
    device = torch.device("cuda", 0)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl", store=store, rank=0, world_size=1, device_id=device
    )
    yield
    dist.destroy_process_group()


def test_few_gradients_are_held_in_float32(group: None) -> None:
    layers = [nn.Linear(SIZE, SIZE, bias=False, dtype=torch.bfloat16) for _ in range(LAYERS)]
    model = nn.Sequential(*layers).cuda()
    replica = DistributedDataParallel(model, gradient_as_bucket_view=True)
    replica.register_comm_hook(deque(), average_in_float32)
    rows = torch.ones(2 * SIZE, SIZE, dtype=torch.bfloat16, device="cuda")
    wide, half = 4 * SIZE**2, 2 * SIZE**2
    for _ in range(2):
        loss = replica(rows).sum()
        activations = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        loss.backward()
        model.zero_grad()
    torch.cuda.synchronize()
    # a gradient of the rows and of a weight, and the buckets that are averaged
    passing = 2 * 2 * rows.nbytes + 2 * half + (AT_ONCE + 2) * wide
    assert torch.cuda.max_memory_allocated() <= activations + passing
    kept = 2 * LAYERS * half + rows.nbytes  # weights and buckets
    assert torch.cuda.memory_allocated() <= 1.1 * kept
