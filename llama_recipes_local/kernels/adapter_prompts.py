"""LLaMA-Adapter's attention to learned prompts, added to the attention to the text.

Prompts and text have separate softmaxes, so this is a second, small attention: about 10 keys,
shared by all rows and documents, without positions and without a mask. Two matrix products cost
less here than a fused kernel could save.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Prompts:
    """Keys and values that queries attend to in addition to the text, the same for all documents.

    Attributes:
        keys: (kv_heads, prompts, head_dim), without rotary positions.
        values: (kv_heads, prompts, head_dim).
        gate: (1,), the factor of the prompts' attention; it starts at 0.
    """

    keys: torch.Tensor
    values: torch.Tensor
    gate: torch.Tensor

    def attend(self, query: torch.Tensor) -> torch.Tensor:
        """Return the gated attention to the prompts, (batch, seq, heads, head_dim).

        Args:
            query: (batch, heads, seq, head_dim).
        """
        groups = query.shape[1] // self.keys.shape[0]  # grouped-query attention
        keys, values = (
            x.to(query.dtype).repeat_interleave(groups, dim=0) for x in (self.keys, self.values)
        )
        scores = query @ keys.transpose(1, 2) / query.shape[-1] ** 0.5
        weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
        return (self.gate.to(query.dtype) * (weights @ values)).transpose(1, 2)
