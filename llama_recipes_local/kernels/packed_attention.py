"""Rotary positions and the attention of short packed documents, by Triton kernels.

FlashAttention computes a tile of 128 queries for each document, however short, and sums the
queries' gradients in float32 by atomic additions, which are another pass over memory. Here tiles
lie over the packed tokens, queries and keys are rotated as the forward pass reads them, and each
gradient is summed by one program and written once. A long document has more tiles of keys, which
are rotated again for each tile of queries, so FlashAttention is left the long ones.
"""

from functools import lru_cache
from math import e, log2
from typing import Any

import torch

from llama_recipes_local.kernels.attention import on_hopper

SHORT, LONGEST = 256, 1024
"""Tokens of a mean and of a longest document that are faster here, as measured on H200."""

_TILE, _INNER = 64, 32  # tokens of a tile, and of what it is read with at a time
_REGISTERS = {64: (255, 128), 128: (168, 255)}
"""By head size, of the forward and the backward pass: registers of a thread at most."""

Angles = tuple[torch.Tensor, torch.Tensor]


def applies(query: torch.Tensor, head_dim: int, documents: int, longest: int) -> bool:
    """Return whether documents are attended faster here, on this device.

    Other kinds of devices have not been measured.

    Args:
        query: (batch, seq, heads * head_dim).
        head_dim: of a head.
        documents: in all rows together.
        longest: tokens in the longest document.
    """
    if head_dim not in _REGISTERS or longest > LONGEST:
        return False
    return query.shape[:2].numel() <= SHORT * documents and on_hopper(query)


def attend(
    projected: tuple[torch.Tensor, ...],
    angles: Angles,
    bounds: torch.Tensor,
    head_dim: int,
    scaling: float,
) -> torch.Tensor:
    """Return what is attended to, (batch, seq, heads * head_dim).

    Args:
        projected: queries, (batch, seq, heads * head_dim), keys and values, (batch, seq, kv_heads *
            head_dim).
        angles: cosines and sines of the positions, each (batch or 1, seq, head_dim).
        bounds: of the documents in the rows one after another, (documents + 1,) int32.
        head_dim: of a head, 64 or 128.
        scaling: factor on the scores.
    """
    spans = document_spans(bounds, projected[0].shape[:2].numel())
    return _Attend.apply(*projected, angles, spans, head_dim, scaling)


@lru_cache(maxsize=1)
def document_spans(bounds: torch.Tensor, tokens: int) -> torch.Tensor:
    """Return where each token's document begins and ends, (2, tokens) int32.

    All layers are given a micro-batch's bounds as the same tensor, so it is made once for them.
    """
    document = torch.repeat_interleave(bounds.diff(), output_size=tokens)
    return torch.stack((bounds[document], bounds[document + 1]))


class _Attend(torch.autograd.Function):
    """See ``attend``."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        angles: Angles,
        spans: torch.Tensor,
        head_dim: int,
        scaling: float,
    ) -> torch.Tensor:
        from llama_recipes_local.kernels.triton import attention_kernels as kernels

        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        cos, sin = (x.expand(len(query), -1, -1).contiguous() for x in angles)
        heads, tokens = query.shape[2] // head_dim, spans.shape[1]
        shape = {"HEADS": heads, "GROUP": query.shape[2] // key.shape[2], "HALF": head_dim // 2}
        out, sums = torch.empty_like(query), query.new_empty(heads, tokens, dtype=torch.float32)
        keep = any(ctx.needs_input_grad)
        turned = [torch.empty_like(x) for x in (query, key)] if keep else [None, None]
        kernels.forward[(heads, -(-tokens // _TILE))](
            query, key, value, cos, sin, spans, *turned, out, sums, scaling * log2(e), tokens,
            **shape, TILE=_TILE, KEYS=_INNER, KEEP=keep, num_warps=4, num_stages=1,
            maxnreg=_REGISTERS[head_dim][0],
        )  # fmt: skip
        ctx.save_for_backward(*turned, value, cos, sin, spans, out, sums)
        ctx.shape, ctx.scaling, ctx.head_dim = shape, scaling, head_dim
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        from llama_recipes_local.kernels.triton import attention_kernels as kernels

        query, key, value, cos, sin, spans, out, sums = ctx.saved_tensors
        given, products = gradients[0].contiguous(), torch.empty_like(sums)
        found = [torch.empty_like(x) for x in (query, key, value)]
        (heads, tokens), head_dim = sums.shape, ctx.head_dim
        tiles = -(-tokens // _TILE)
        kernels.row_products[(heads, tiles)](
            given, out, products, tokens, HEADS=heads, WIDTH=head_dim, TILE=_TILE
        )
        kernels.backward[(key.shape[2] // head_dim + heads, tiles)](
            given, query, key, value, cos, sin, spans, products, sums, *found,
            ctx.scaling * log2(e), tokens,
            **ctx.shape, TILE=_TILE, INNER=_INNER, num_warps=4, num_stages=1,
            maxnreg=_REGISTERS[head_dim][1],
        )  # fmt: skip
        return *found, None, None, None, None
