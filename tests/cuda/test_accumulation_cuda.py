"""Micro-batches on CUDA: a step's gradient is the sum of theirs, with nothing left for the next."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from llama_recipes_local import configs, models, parallel
from llama_recipes_local.adapters import generate_peft_config, get_peft_model
from llama_recipes_local.run import activate, resolve
from llama_recipes_local.training.stepping import Stepper

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
BATCHES = torch.arange(3, 163).view(2, 1, 80)
ONE_RANK = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1}


@pytest.fixture(autouse=True)
def _one_rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {**ONE_RANK, "MASTER_ADDR": "localhost", "MASTER_PORT": 0}.items():
        monkeypatch.setitem(os.environ, name, str(value))
    parallel.setup()
    yield
    parallel.cleanup()


class Recorder(torch.optim.SGD):
    """Keeps each step's gradients, and moves nothing."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.gradients: list[torch.Tensor] = []
        super().__init__([p for p in model.parameters() if p.requires_grad], lr=0.0)

    def step(self, closure: Any = None) -> None:
        params = self.param_groups[0]["params"]
        self.gradients.append(
            torch.cat([parallel.full_tensor(p.grad).flatten().clone() for p in params])
        )


def gradients(folder: Path, flags: dict[str, Any], steps: list[torch.Tensor]) -> torch.Tensor:
    """Return the sum of the gradients of some steps, each of some micro-batches."""
    run = resolve({"model_name": str(folder), "use_peft": True, "enable_fsdp": True, **flags})
    torch.manual_seed(0)
    with activate(run):
        model = models.LlamaForCausalLM.from_pretrained(folder)
        model = get_peft_model(model, generate_peft_config(run.train, {"lora_dropout": 0.0}))
        policy, _ = parallel.get_policies(run.fsdp, 0)
        sharded: Any = parallel.FullyShardedDataParallel(
            model, [LlamaDecoderLayer], mixed_precision=policy
        )
    optimizer = Recorder(sharded.train())
    stepper = Stepper(sharded, optimizer, configs.train_config(enable_fsdp=True))
    for micro_batches in steps:
        stepper.step([{"input_ids": ids, "labels": ids} for ids in micro_batches], 2 * 79)
    return torch.stack(optimizer.gradients).sum(0)


@pytest.mark.parametrize("flags", [{}, {"quantization": "4bit"}], ids=str)
def test_two_micro_batches_are_the_sum_of_two_steps(
    tiny_model: Path, flags: dict[str, Any]
) -> None:
    together = gradients(tiny_model, flags, [BATCHES])
    singly = gradients(tiny_model, flags, list(BATCHES.split(1)))
    # the same bfloat16 products; a gradient that came a step late would be half of them
    assert float((together - singly).norm() / singly.norm()) < 1e-3
