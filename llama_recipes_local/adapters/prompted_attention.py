"""LLaMA-Adapter without computing queries and output projection twice.

PEFT wraps an attention layer and computes the attention to the prompts next to it, for which it
projects the hidden states a second time. Here the prompts' keys and values are arguments of this
package's attention, which has the queries; see ``kernels.attention``. Parameters, results and saved
files are PEFT's.
"""

from typing import Any

import peft
import torch
from peft.tuners.adaption_prompt.layer import AdaptedAttention

from llama_recipes_local.kernels.adapter_prompts import Prompts
from llama_recipes_local.kernels.attention import NAME
from llama_recipes_local.library_patches import LLAMA_ADAPTER


def install(adapted: peft.PeftModel) -> None:
    """Compute the attention layers that a LLaMA-Adapter wraps with this package's attention."""
    LLAMA_ADAPTER.check()
    for module in adapted.modules():
        if type(module) is AdaptedAttention and _attends_here(module):
            module.__class__ = PromptedAttention


def _attends_here(module: AdaptedAttention) -> bool:
    """Whether this package's attention can compute the layer with the same result as PEFT.

    PEFT projects the prompts' output separately, so a bias is added twice and 8-bit layers round
    each projection; adding before a single projection would then differ.
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
