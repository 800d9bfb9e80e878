"""Attention to a layer's own prompts beside that to the text, as LLaMA-Adapter adds it."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Prompts:
    """What queries attend to beside the text; every document and row sees the same.

    Attributes:
        keys: (kv_heads, prompts, head_dim), without a position.
        values: (kv_heads, prompts, head_dim).
        gate: (1,), the factor of what the prompts add; it begins at 0.
    """

    keys: torch.Tensor
    values: torch.Tensor
    gate: torch.Tensor

    def attend(self, query: torch.Tensor) -> torch.Tensor:
        """Return what the prompts add to the attended values, (batch, seq, heads, head_dim).

        Args:
            query: (batch, heads, seq, head_dim).
        """
        groups = query.shape[1] // self.keys.shape[0]
        keys, values = (
            x.to(query.dtype).repeat_interleave(groups, dim=0) for x in (self.keys, self.values)
        )
        scores = query @ keys.transpose(1, 2) / query.shape[-1] ** 0.5
        weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
        return (self.gate.to(query.dtype) * (weights @ values)).transpose(1, 2)
