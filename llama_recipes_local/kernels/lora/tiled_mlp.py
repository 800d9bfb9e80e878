"""The MLP of a recomputed layer, some thousand tokens at a time.

The outputs of gate and up are three times as wide as the rest of a layer, and so are their
gradients; for whole rows they are most of what a recomputed layer needs. An MLP treats each token
by itself, so here these tensors exist only for some tokens at a time, in the forward pass and,
recomputed, in the backward pass.
"""

from dataclasses import replace
from typing import Any

import torch

from llama_recipes_local.kernels.lora.dropout import Dropout
from llama_recipes_local.kernels.lora.products import Given
from llama_recipes_local.kernels.lora.projections import (
    Group,
    Layer,
    matrices,
    own_precision,
    rows_of,
)

_TOKENS = 4096  # of a tile, at most: enough that products run at full speed
_MULTIPLE = 128
_SEEDS = 2**31
_STEP = 0x9E3779B1  # between the seeds of two tiles


def tiled_mlp(
    x: torch.Tensor, gate_up: tuple[Layer, Layer], down: Layer, dropouts: tuple[Dropout, Dropout]
) -> torch.Tensor:
    """Compute ``projections.mlp``, and keep only ``x`` for the gradients.

    With activation checkpointing, nothing of it is recomputed before its own backward pass.
    """
    kept = _Kept()
    with own_precision(x):
        trained = matrices((*gate_up, down))
        return _Mlp.apply(_Keep.apply(x, kept), kept, (gate_up, (down,)), dropouts, *trained)


class _Kept:
    """What ``_Keep`` keeps, for ``_Mlp``."""

    node: Any = None


class _Keep(torch.autograd.Function):
    """Keeps the input of an MLP before it is computed.

    A checkpoint recomputes until it has all kept tensors. So it stops here.
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
        groups = [group.with_weights() for group in ctx.groups]
        rows, out = rows_of(x), None
        for number, tile in enumerate(_tiles(len(rows))):
            part, low = _forward(groups, rows[tile], _of_tile(dropouts, number))
            ctx.lows.append(low)
            out = _put(out, part, tile, len(rows))
        assert out is not None
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        node = ctx.kept.node if ctx.needs_input_grad[0] else ctx
        (x,) = node.saved_tensors
        rows, gradient = rows_of(x), rows_of(gradients[0])
        groups = [group.with_weights() for group in ctx.groups]
        dx: torch.Tensor | None = None
        sums: list[torch.Tensor | None] = []
        for number, tile in enumerate(_tiles(len(rows))):
            dropouts = _of_tile(ctx.dropouts, number)
            made = _backward(
                groups, rows[tile], ctx.lows[number], gradient[tile], dropouts,
                ctx.needs_input_grad[0],
            )  # fmt: skip
            if made[0] is not None:
                dx = _put(dx, made[0], tile, len(rows))
            sums = [_sum(*pair) for pair in zip(sums, made[1], strict=True)] if sums else made[1]
        first, last = (group.apart(own) for group, own in zip(groups, sums, strict=True))
        return None if dx is None else dx.view(x.shape), None, None, None, *first, *last


# functions, because what a loop has made is there until it is made again


def _forward(
    groups: list[Group], x: torch.Tensor, dropouts: tuple[Dropout, Dropout]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return a tile's output, (tokens, features), and the outputs of the last layer's A.

    Args:
        groups: gate and up, and down.
        x: (tokens, features).
        dropouts: dropout of the inputs of each group's adapters.
    """
    gate_up, down = groups
    hidden = down.swiglu(*gate_up.forward(Given((x,)), dropouts[0])[0])
    (out,), low = down.forward(hidden, dropouts[1])
    return out, low


def _backward(
    groups: list[Group],
    x: torch.Tensor,
    low: torch.Tensor | None,
    gradient: torch.Tensor,
    dropouts: tuple[Dropout, Dropout],
    needs_dx: bool,
) -> tuple[torch.Tensor | None, list[torch.Tensor | None]]:
    """Return the gradients of a tile's input, if needed, and of each group's matrices.

    Args:
        groups: as in ``_forward``.
        x: as in ``_forward``.
        low: from ``_forward``.
        gradient: gradient of the output, (tokens, features).
        dropouts: as in ``_forward``.
        needs_dx: whether the input's gradient is needed.
    """
    gate_up, down = groups
    both, own_low = gate_up.forward(Given((x,)), dropouts[0])
    of_low = down.lowered((gradient,))
    of_hidden = down.input_gradient(Given((gradient,)), of_low, dropouts[1])
    again = down.a is not None
    of_both, hidden = gate_up.swiglu_backward(of_hidden, both, again, over=True)
    of_down = down.matrix_gradients((gradient,), of_low, hidden, low, dropouts[1])
    del of_hidden, hidden
    of_low = gate_up.lowered(of_both.tensors)
    dx = gate_up.input_gradient(of_both, of_low, dropouts[0]) if needs_dx else None
    of_gate_up = gate_up.matrix_gradients(of_both.tensors, of_low, x, own_low, dropouts[0])
    return dx, [of_gate_up, of_down]


def _sum(one: torch.Tensor | None, two: torch.Tensor | None) -> torch.Tensor | None:
    """Return the sum of a group's gradients from two tiles, written over the first."""
    return None if one is None or two is None else one.add_(two)


def _tiles(tokens: int) -> list[slice]:
    """Return the number of tokens of each tile, about equal."""
    count = -(-tokens // _TOKENS)
    size = -(-tokens // (count * _MULTIPLE)) * _MULTIPLE if count > 1 else tokens
    return [slice(first, min(first + size, tokens)) for first in range(0, tokens, size)]


def _of_tile(dropouts: tuple[Dropout, Dropout], number: int) -> tuple[Dropout, Dropout]:
    """Return the dropout of a tile whose first row has number 0."""
    first, last = (replace(d, seed=(d.seed + number * _STEP) % _SEEDS) for d in dropouts)
    return first, last


def _put(whole: torch.Tensor | None, part: torch.Tensor, tile: slice, tokens: int) -> torch.Tensor:
    """Copy a tile's rows, (rows, features), into the whole tensor; the first tile allocates it."""
    if whole is None and len(part) == tokens:
        return part
    if whole is None:
        whole = part.new_empty(tokens, part.shape[1])
    whole[tile] = part
    return whole
