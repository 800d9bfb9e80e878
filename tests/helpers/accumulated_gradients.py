"""Records the gradients of an adapter on a sharded model, for steps of several micro-batches."""

from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from llama_recipes_local import configs, models, parallel
from llama_recipes_local.adapters import generate_peft_config, get_peft_model
from llama_recipes_local.policies import apply_fsdp_checkpointing
from llama_recipes_local.run import activate
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.training import stepping

Gradients = list[torch.Tensor]


class Recorder(torch.optim.SGD):
    """Keeps each step's gradients; its learning rate is 0."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.gradients: list[Gradients] = []
        super().__init__([p for p in model.parameters() if p.requires_grad], lr=0.0)

    def step(self, closure: Any = None) -> None:
        params = self.param_groups[0]["params"]
        self.gradients.append([parallel.full_tensor(p.grad).clone() for p in params])


def gradients(
    folder: Path,
    flags: dict[str, Any],
    steps: list[torch.Tensor],
    policy: MixedPrecisionPolicy | None = None,
) -> list[Gradients]:
    """Return the adapter's accumulated gradients of each step.

    Args:
        folder: the model's folder.
        flags: the run's.
        steps: (micro-batches, rows, seq) ids, for each step.
        policy: FSDP2's mixed precision.
    """
    run = resolve({"model_name": str(folder), "use_peft": True, "enable_fsdp": True, **flags})
    torch.manual_seed(0)
    with activate(run):
        model = models.LlamaForCausalLM.from_pretrained(folder)
        chosen = {name: flags[name] for name in ("use_dora",) if name in flags}
        model = get_peft_model(
            model, generate_peft_config(run.train, {"lora_dropout": 0.0, **chosen})
        )
        sharded: Any = parallel.FullyShardedDataParallel(
            model, [LlamaDecoderLayer], None, policy, run.fsdp.sharding_strategy
        )
    apply_fsdp_checkpointing(sharded)
    optimizer = Recorder(sharded.train())
    stepper = stepping.Stepper(sharded, optimizer, configs.train_config())
    rows, length = steps[0].shape[1:]
    labels = sum(len(micro_batches) for micro_batches in steps) * rows * (length - 1)
    for micro_batches in steps:
        stepper.step([{"input_ids": ids, "labels": ids} for ids in micro_batches], labels)
    return optimizer.gradients
