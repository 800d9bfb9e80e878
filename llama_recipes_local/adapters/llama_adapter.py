"""LLaMA-Adapter without computing queries and output projection twice.

PEFT wraps an attention layer and computes the attention to the prompts next to it, for which it
projects the hidden states a second time. Here the prompts' keys and values are arguments of this
package's attention, which has the queries; see ``kernels.attention``. Parameters, results and saved
files are PEFT's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import peft
import torch
from peft.tuners.adaption_prompt.layer import AdaptedAttention

from llama_recipes_local._upstream import load_alone
from llama_recipes_local.adapters.base import TASK, AdapterMethod
from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import AT_LEAST_1
from llama_recipes_local.kernels.adapter_prompts import Prompts
from llama_recipes_local.kernels.attention import NAME
from llama_recipes_local.library_patches import LLAMA_ADAPTER
from llama_recipes_local.run import Run

if TYPE_CHECKING:
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
    """Compute the attention layers that a LLaMA-Adapter wraps with this package's attention."""
    LLAMA_ADAPTER.check()
    for module in adapted.modules():
        if type(module) is AdaptedAttention and _attends_here(module):
            module.__class__ = PromptedAttention


def _attends_here(module: AdaptedAttention) -> bool:
    """Whether the layer uses this package's attention, and adding before its projection is right.

    PEFT projects the output for the prompts separately: a bias is added twice then, and 8-bit
    layers round each projection separately.
    """
    projection = module.model.o_proj
    adds_up = projection.bias is None and projection.weight.dtype != torch.int8
    return adds_up and module.model.config._attn_implementation == NAME


class PromptedAttention(AdaptedAttention):
    """A Llama's attention layer that also attends to prompts, scaled by a gate."""

    def forward(  # type: ignore[override]  # PEFT takes all by name
        self, hidden_states: torch.Tensor, **kwargs: object
    ) -> Any:
        """Compute the layer; the arguments are transformers' own."""
        attention: Any = self.model
        prompt = self.adaption_prompt[0].to(hidden_states.dtype)
        shape = (self.adapter_len, -1, attention.head_dim)
        keys, values = (
            projection(prompt).view(shape).transpose(0, 1)
            for projection in (attention.k_proj, attention.v_proj)
        )
        prompts = Prompts(keys, values, self.adaption_gate)
        return attention(hidden_states=hidden_states, prompts=prompts, **kwargs)


METHOD = AdapterMethod(
    name="llama_adapter",
    title="LLaMA-Adapter",
    config=llama_adapter_config,
    peft_config=peft.AdaptionPromptConfig,
    peft_type="ADAPTION_PROMPT",
    check=check,
    install=install,
)
