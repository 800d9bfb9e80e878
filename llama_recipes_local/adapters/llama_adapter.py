"""LLaMA-Adapter; ``adapters.prompted_attention`` computes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from llama_recipes_local._upstream import load_alone
from llama_recipes_local.adapters.base import TASK, AdapterMethod
from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import AT_LEAST_1
from llama_recipes_local.run import Run

if TYPE_CHECKING:
    import peft

    from llama_recipes_local._vendor.llama_recipes.configs.peft import (
        llama_adapter_config as _llama_adapter_config,
    )
else:
    _llama_adapter_config = load_alone("configs.peft").llama_adapter_config


@dataclass
class llama_adapter_config(_llama_adapter_config):
    """LLaMA-Adapter (2303.16199): prompts in the last layers' attention, behind a gate."""

    adapter_len: Annotated[int, AT_LEAST_1] = _llama_adapter_config.adapter_len
    """Prompts of LLaMA-Adapter in each of its layers."""

    adapter_layers: Annotated[int, AT_LEAST_1] = _llama_adapter_config.adapter_layers
    """How many of the last layers get them."""

    task_type: Annotated[str, TASK] = _llama_adapter_config.task_type
    """PEFT's name for the task."""


def check(
    run: Run, adapter: llama_adapter_config, model: dict[str, Any], folder: Path
) -> list[Problem]:
    """Return what is wrong with a run that makes a new one; see ``AdapterMethod.check``."""
    layers = model.get("num_hidden_layers")
    if not isinstance(layers, int) or adapter.adapter_layers <= layers:
        return []
    return [
        Problem(
            f"--adapter_layers {adapter.adapter_layers}",
            f"the model in {folder} has {layers} layers (num_hidden_layers)",
            f"use --adapter_layers {layers} or less",
        )
    ]


def install(adapted: peft.PeftModel) -> None:
    """Compute its attention layers with this package's attention."""
    from llama_recipes_local.adapters.prompted_attention import install

    install(adapted)


METHOD = AdapterMethod(
    name="llama_adapter",
    title="LLaMA-Adapter",
    config=llama_adapter_config,
    peft_type="ADAPTION_PROMPT",
    check=check,
    install=install,
)
