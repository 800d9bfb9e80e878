"""LLaMA-Adapter without computing queries and output projection twice.

PEFT wraps an attention layer and attends to the prompts beside it, for which it projects the
hidden states a second time. Here the prompts' keys and values go to this package's attention, which
has the queries; see ``kernels.attention``. Parameters, result and saved files are PEFT's.
"""

from typing import Any

import peft
import torch
from peft.tuners.adaption_prompt.layer import AdaptedAttention

from llama_recipes_local.kernels.adapter_prompts import Prompts
from llama_recipes_local.kernels.attention import NAME


def take_over(adapted: peft.PeftModel) -> None:
    """Have the attention layers that a LLaMA-Adapter wraps attend to its prompts here."""
    for module in adapted.modules():
        if type(module) is AdaptedAttention and _attends_here(module):
            module.__class__ = PromptedAttention


def _attends_here(module: Any) -> bool:
    """Whether the layer uses this package's attention, and adding before its projection is right.

    PEFT projects the prompts' part by itself: it adds a bias twice, and 8-bit layers round what is
    projected, each part by itself.
    """
    projection = module.model.o_proj
    adds_up = projection.bias is None and projection.weight.dtype != torch.int8
    return adds_up and module.model.config._attn_implementation == NAME


class PromptedAttention(AdaptedAttention):
    """A Llama's attention layer with prompts that are attended to behind a gate."""

    def forward(self, **kwargs: Any) -> Any:
        """Compute the layer; the arguments are transformers' own."""
        attention: Any = self.model
        prompt = self.adaption_prompt[0].to(kwargs["hidden_states"].dtype)
        shape = (self.adapter_len, -1, attention.head_dim)
        keys, values = (
            projection(prompt).view(shape).transpose(0, 1)
            for projection in (attention.k_proj, attention.v_proj)
        )
        prompts = Prompts(keys, values, self.adaption_gate)
        return attention(prompts=prompts, **kwargs)
