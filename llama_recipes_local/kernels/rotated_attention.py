"""Rotary positions and the attention of packed documents as one function, from projections on.

It computes what ``rotary`` and ``attention`` do, by the same kernels or, for short documents, by
``packed_attention``. Apart they are a dozen views, each with a node of autograd's, and an operator
in Python with one more: for a layer of a small model that takes the host a tenth of its time.
"""

from typing import Any

import torch

from llama_recipes_local.kernels import DOCUMENTS, packed_attention
from llama_recipes_local.kernels.attention import are_long_rows, supports_varlen_kernel
from llama_recipes_local.kernels.rotary import rotated

Angles = tuple[torch.Tensor, torch.Tensor]
_CAUSAL = {"window_size_left": -1, "window_size_right": 0}


def applies(
    module: Any, query: torch.Tensor, attention_mask: torch.Tensor | None, kwargs: dict[str, Any]
) -> bool:
    """Return whether a ``LlamaAttention`` attends within documents of known bounds, and so here.

    Long documents of one length are left to ``attention``.

    Args:
        module: the attention layer.
        query: (batch, seq, heads * head_dim).
        attention_mask: None unless there is padding.
        kwargs: for the attention implementation; with a prefix or prompts it is not computed here.
    """
    bounds, longest = kwargs.get("cu_seq_lens_q"), kwargs.get("max_length_q")
    more = kwargs.get("prefix") is not None or kwargs.get("prompts") is not None
    if module.config._attn_implementation != DOCUMENTS or attention_mask is not None or more:
        return False
    device = query.device.type
    cast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) != query.dtype
    if bounds is None or longest is None or cast:
        return False
    tokens = query.shape[:2].numel()
    long = are_long_rows(query, tokens, bounds, longest)
    return not long and supports_varlen_kernel(query, module.head_dim)


def attend(
    projected: tuple[torch.Tensor, ...],
    angles: Angles,
    documents: tuple[torch.Tensor, int],
    head_dim: int,
    scaling: float,
) -> torch.Tensor:
    """Return the attention's output, (batch, seq, heads * head_dim).

    Args:
        projected: queries, (batch, seq, heads * head_dim), keys and values, (batch, seq, kv_heads *
            head_dim).
        angles: cosines and sines of the positions, each (batch or 1, seq, head_dim).
        documents: the documents' bounds in the concatenated rows, (documents + 1,) int32, and the
            length of the longest.
        head_dim: features of a head.
        scaling: factor on the scores.
    """
    bounds, longest = documents
    if packed_attention.applies(projected[0], head_dim, len(bounds) - 1, longest):
        return packed_attention.attend(projected, angles, bounds, head_dim, scaling)
    return _Attend.apply(*projected, angles, documents, head_dim, scaling)


class _Attend(torch.autograd.Function):
    """See ``attend``."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        angles: Angles,
        documents: tuple[torch.Tensor, int],
        head_dim: int,
        scaling: float,
    ) -> torch.Tensor:
        cos, sin = (x.contiguous() for x in angles)
        heads = [x.view(*x.shape[:2], -1, head_dim) for x in (query, key, value)]
        query, key = rotated(heads[0], heads[1], cos, sin, 1.0)
        rows = [x.flatten(0, 1) for x in (query, key, heads[2])]
        out, *rest = _forward(rows, documents, scaling)
        bounds, ctx.longest = documents
        ctx.save_for_backward(*rows, out, *rest, bounds, cos, sin)
        ctx.shape, ctx.scaling = query.shape, scaling
        return out.view(*query.shape[:2], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        *kept, bounds, cos, sin = ctx.saved_tensors
        batch, seq, heads, head_dim = ctx.shape
        given = gradients[0].contiguous().view(-1, heads, head_dim)
        found = _backward(given, kept, (bounds, ctx.longest), ctx.scaling)
        query, key, value = (x.view(batch, seq, -1, head_dim) for x in found)
        query, key = rotated(query, key, cos, sin, -1.0)
        return *(x.flatten(2) for x in (query, key, value)), None, None, None, None


def _forward(
    rows: list[torch.Tensor], documents: tuple[torch.Tensor, int], scaling: float
) -> tuple[torch.Tensor, ...]:
    """Return the attention's output, as ``varlen_attn`` does, and what the backward pass needs.

    Args:
        rows: queries, (tokens, heads, head_dim), keys and values, (tokens, kv_heads, head_dim).
        documents: as in ``attend``.
        scaling: as in ``attend``.
    """
    bounds, longest = documents
    sizes = bounds, bounds, longest, longest
    *made, _ = torch.ops.aten._flash_attention_forward(
        *rows, *sizes, 0.0, True, False, scale=scaling, **_CAUSAL
    )
    return tuple(made)


def _backward(
    gradient: torch.Tensor,
    kept: list[torch.Tensor],
    documents: tuple[torch.Tensor, int],
    scaling: float,
) -> tuple[torch.Tensor, ...]:
    """Return the gradients of ``rows``, given that of the output, (tokens, heads, head_dim)."""
    *rows, out, scores, state, unused = kept
    bounds, longest = documents
    sizes = bounds, bounds, longest, longest
    return torch.ops.aten._flash_attention_backward(
        *(gradient, *rows, out, scores), *sizes, 0.0, True, state, unused, scale=scaling, **_CAUSAL
    )
