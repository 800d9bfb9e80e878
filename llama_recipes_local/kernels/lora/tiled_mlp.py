"""The MLP of a layer that is recomputed, some thousand tokens at a time.

What gate and up put out is three times as wide as the rest of a layer, and its gradients as well:
of whole rows it is most of what a recomputed layer needs. Tokens do not meet in an MLP, so here it
exists for some tokens at a time, in the forward pass and, made again, in the backward pass.
"""

from dataclasses import replace
from typing import Any

import torch

from llama_recipes_local.kernels.lora.dropout import Dropout
from llama_recipes_local.kernels.lora.projections import (
    Group,
    Layer,
    matrices,
    own_precision,
    rows_of,
)
from llama_recipes_local.kernels.swiglu import swiglu, swiglu_backward

_TOKENS = 4096  # of a tile, at most: enough that products run at full speed
_MULTIPLE = 128
_SEEDS = 2**31
_STEP = 0x9E3779B1  # between the seeds of two tiles


def tiled_mlp(
    x: torch.Tensor, gate_up: tuple[Layer, Layer], down: Layer, dropouts: tuple[Dropout, Dropout]
) -> torch.Tensor:
    """Return what ``projections.mlp`` does, and keep ``x`` alone for the gradients.

    With activation checkpointing nothing of it is computed again before its own backward pass.
    """
    kept = _Kept()
    with own_precision(x):
        trained = matrices((*gate_up, down))
        return _Mlp.apply(_Keep.apply(x, kept), kept, (gate_up, (down,)), dropouts, *trained)


class _Kept:
    """What ``_Keep`` keeps, for ``_Mlp``."""

    node: Any = None


class _Keep(torch.autograd.Function):
    """Keeps the input of an MLP, before it is computed.

    A checkpoint computes until all is there that was kept. So it ends here.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kept: _Kept) -> torch.Tensor:
        ctx.save_for_backward(x)
        kept.node = ctx
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0], None


class _Mlp(torch.autograd.Function):
    """See ``tiled_mlp``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        kept: _Kept,
        layers: tuple[tuple[Layer, Layer], tuple[Layer]],
        dropouts: tuple[Dropout, Dropout],
        *_: torch.Tensor,
    ) -> torch.Tensor:
        ctx.groups = [Group(each, x.dtype) for each in layers]
        ctx.kept, ctx.dropouts, ctx.lows = kept, dropouts, []
        if not ctx.needs_input_grad[0]:  # then nothing keeps it
            ctx.save_for_backward(x)
        gate_up, down = (group.with_weights() for group in ctx.groups)
        rows, out = rows_of(x), None
        for number, tile in enumerate(_tiles(len(rows))):
            first, last = (_of_tile(dropout, number) for dropout in dropouts)
            (gate, up), _low = gate_up.forward(rows[tile], first)
            (part,), low = down.forward(swiglu(gate, up), last)
            ctx.lows.append(low)
            out = _put(out, part, tile, len(rows))
        assert out is not None
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        node = ctx.kept.node if ctx.needs_input_grad[0] else ctx
        (x,) = node.saved_tensors
        rows, gradient = rows_of(x), rows_of(gradients[0])
        gate_up, down = (group.with_weights() for group in ctx.groups)
        dx: torch.Tensor | None = None
        sums: list[torch.Tensor] = []
        for number, tile in enumerate(_tiles(len(rows))):
            first, last = (_of_tile(dropout, number) for dropout in ctx.dropouts)
            (gate, up), low = gate_up.forward(rows[tile], first)
            of_out = (gradient[tile],)
            of_low = down.lowered(of_out)
            of_hidden = down.input_gradient(of_out, of_low, last)
            again = down.a is not None
            *of_both, hidden = swiglu_backward(of_hidden, gate, up, again, over=True)
            found = down.matrix_gradients(of_out, of_low, hidden, ctx.lows[number], last)
            of_low = gate_up.lowered(tuple(of_both))
            if ctx.needs_input_grad[0]:
                part = gate_up.input_gradient(tuple(of_both), of_low, first)
                dx = _put(dx, part, tile, len(rows))
            both = tuple(of_both)
            found = gate_up.matrix_gradients(both, of_low, rows[tile], low, first) + found
            sums = [one + two for one, two in zip(sums, found, strict=True)] if sums else found
        return None if dx is None else dx.view(x.shape), None, None, None, *sums


def _tiles(tokens: int) -> list[slice]:
    """Return the tokens of each tile, about as many in each."""
    count = -(-tokens // _TOKENS)
    size = -(-tokens // (count * _MULTIPLE)) * _MULTIPLE if count > 1 else tokens
    return [slice(first, min(first + size, tokens)) for first in range(0, tokens, size)]


def _of_tile(dropout: Dropout, number: int) -> Dropout:
    """Return what is dropped in a tile, which begins at row 0."""
    return replace(dropout, seed=(dropout.seed + number * _STEP) % _SEEDS)


def _put(whole: torch.Tensor | None, part: torch.Tensor, tile: slice, tokens: int) -> torch.Tensor:
    """Put a tile's rows, (rows, features), into the whole, which the first makes."""
    if whole is None and len(part) == tokens:
        return part
    if whole is None:
        whole = part.new_empty(tokens, part.shape[1])
    whole[tile] = part
    return whole
