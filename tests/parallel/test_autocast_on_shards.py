"""Quantised weights that FSDP2 has sharded, computed by autocast as on CUDA."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accumulated_gradients import gradients
from safetensors.torch import load_file
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from llama_recipes_local import models, parallel
from llama_recipes_local.kernels.fp8.trained_linear import TrainedFp8Linear
from llama_recipes_local.models import precision
from llama_recipes_local.run import activate
from llama_recipes_local.run.resolution import resolve
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


def test_weights_that_are_trained_in_fp8_are_read_when_they_are_sharded(tiny_model: Path) -> None:
    """As with ``--low_cpu_fsdp``: nothing is made of them before."""
    flags = {"model_name": str(tiny_model), "enable_fsdp": True, "low_cpu_fsdp": True, "fp8": True}
    with activate(resolve(flags)):
        model: Any = models.LlamaForCausalLM.from_pretrained(tiny_model)
    assert type(model.model.layers[0].mlp.up_proj) is TrainedFp8Linear
    parallel.FullyShardedDataParallel(model, [LlamaDecoderLayer], sync_module_states=True)
    weights = load_file(tiny_model / "model.safetensors")
    found = {name: parallel.full_tensor(p) for name, p in model.named_parameters()}
    assert all(weights[name].float().equal(found[name].float()) for name in weights)
    model(input_ids=BATCHES[0], labels=BATCHES[0]).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
