"""Rotary positions of queries and keys, both in one pass over memory."""

from typing import Any

import torch
from transformers.models.llama import modeling_llama


def rotate(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return queries and keys rotated by their positions, of the same shapes.

    Args:
        query: (batch, seq, heads, head_dim).
        key: (batch, seq, kv_heads, head_dim).
        cos: (batch or 1, seq, head_dim), with two equal halves, as transformers makes them.
        sin: (batch or 1, seq, head_dim).
    """
    if not query.is_cuda:
        return rotated(query, key, cos, sin, 1.0)
    return _Rotate.apply(query, key, cos.contiguous(), sin.contiguous())


class _Rotate(torch.autograd.Function):
    """See ``rotate``."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(cos, sin)
        return rotated(query, key, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        return *rotated(gradients[0], gradients[1], cos, sin, -1.0), None, None


def rotated(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate by ``sign`` times the angles, see ``rotate``; gradients are rotated back."""
    if not query.is_cuda:
        made = modeling_llama.apply_rotary_pos_emb(query, key, cos, sign * sin, unsqueeze_dim=2)
        return made[0], made[1]
    from llama_recipes_local.kernels.triton import rotary_kernels as kernels

    query, key = query.contiguous(), key.contiguous()
    batch, seq, heads, width = query.shape
    out = torch.empty_like(query), torch.empty_like(key)
    heads_at_once = 1 << (max(heads, key.shape[2]) - 1).bit_length()
    kernels.rotate[(batch * seq,)](
        query, key, *out, cos, sin, sign, seq, 0 if len(cos) == 1 else seq, heads, key.shape[2],
        width // 2, HEADS=heads_at_once, HALF=1 << (width // 2 - 1).bit_length(),
    )  # fmt: skip
    return out
