"""Quantised weights that FSDP2 has sharded, computed by autocast as on CUDA."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from llama_recipes_local import configs, models, parallel
from llama_recipes_local.adapters import generate_peft_config, get_peft_model
from llama_recipes_local.models import precision
from llama_recipes_local.policies import apply_fsdp_checkpointing
from llama_recipes_local.run import activate, resolve
from llama_recipes_local.training import stepping

Gradients = list[torch.Tensor]
BATCHES = torch.arange(3, 323).view(4, 1, 80)
LABELS = 4 * 79


class Recorder(torch.optim.SGD):
    """Keeps each step's gradients, and moves nothing."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.gradients: list[Gradients] = []
        super().__init__([p for p in model.parameters() if p.requires_grad], lr=0.0)

    def step(self, closure: Any = None) -> None:
        params = self.param_groups[0]["params"]
        self.gradients.append([parallel.full_tensor(p.grad).clone() for p in params])


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


def gradients(folder: Path, flags: dict[str, Any], steps: list[torch.Tensor]) -> list[Gradients]:
    """Return the adapter's gradient after each step of some micro-batches."""
    flags = {"model_name": str(folder), "use_peft": True, "lora_dropout": 0.0, **flags}
    run = resolve(flags | {"enable_fsdp": True, "dtype": "bfloat16", "compute_dtype": "bfloat16"})
    torch.manual_seed(0)
    with activate(run):
        model = models.LlamaForCausalLM.from_pretrained(folder)
        chosen = {name: flags[name] for name in ("lora_dropout", "use_dora") if name in flags}
        model = get_peft_model(model, generate_peft_config(run.train, chosen))
        sharded: Any = parallel.FullyShardedDataParallel(
            model, [LlamaDecoderLayer], sharding_strategy=run.fsdp.sharding_strategy
        )
    apply_fsdp_checkpointing(sharded)
    optimizer = Recorder(sharded.train())
    stepper = stepping.Stepper(sharded, optimizer, configs.train_config())
    for micro_batches in steps:
        stepper.step([{"input_ids": ids, "labels": ids} for ids in micro_batches], LABELS)
    return optimizer.gradients


@pytest.mark.parametrize(
    "flags",
    [
        {"quantization": "4bit"},
        {"quantization": "4bit", "use_dora": True},
        {"quantization": "4bit", "sharding_strategy": "NO_SHARD"},
        {"quantization": "8bit", "sharding_strategy": "NO_SHARD"},
    ],
    ids=str,
)
def test_each_micro_batch_counts_in_its_own_step(tiny_model: Path, flags: dict[str, Any]) -> None:
    singly = gradients(tiny_model, flags, list(BATCHES.split(1)))
    in_pairs = gradients(tiny_model, flags, list(BATCHES.split(2)))
    for number, step in enumerate(in_pairs):
        first, second = singly[2 * number : 2 * number + 2]
        assert any(gradient.count_nonzero() for gradient in step)
        for ours, one, other in zip(step, first, second, strict=True):
            # the same numbers, and one float32 sum
            torch.testing.assert_close(ours, one + other, rtol=1e-5, atol=1e-9)
