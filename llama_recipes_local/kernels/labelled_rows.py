"""The rows of a batch that its loss reads: those at which a label is predicted.

Behind the last attention a token's hidden states are read by nothing but its own prediction. So
what follows it, from its output projection on, is computed for these rows alone.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from llama_recipes_local.data.concatenator import IGNORE_INDEX

_MULTIPLE = 128  # of rows, so that the number of shapes is small, and fp8 can sum over rows
_WORTH = 0.95  # of all rows, at most: picking them takes some passes over memory


@dataclass(frozen=True)
class Labelled:
    """The positions at which labels are predicted, in the flat batch.

    Attributes:
        positions: (labels,) int64, ascending.
        labels: (labels,), what is predicted at each.
        rows: (rows,) int64, the positions and some others, a multiple of 128; None if they are
            nearly all of the batch.
    """

    positions: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor | None


def labelled(labels: torch.Tensor) -> Labelled:
    """Return where labels, (batch, seq), are predicted: one position before each.

    It waits for the device, which must tell their number.
    """
    following = F.pad(labels, (0, 1), value=IGNORE_INDEX)[..., 1:].flatten()
    without = following == IGNORE_INDEX
    order = without.to(torch.uint8).argsort(stable=True)
    count = len(order) - int(without.sum())
    rows = max(-(-count // _MULTIPLE), 1) * _MULTIPLE
    positions = order[:count]
    few = rows <= _WORTH * len(order)
    return Labelled(positions, following[positions], order[:rows] if few else None)


def take(x: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
    """Return some rows of ``x``, (batch, seq, features), as (1, rows, features); None means x."""
    return x if rows is None else _Take.apply(x, rows)


def put(x: torch.Tensor, rows: torch.Tensor | None, shape: torch.Size) -> torch.Tensor:
    """Return ``x``, (1, rows, features), at its rows of a tensor of zeros of some shape.

    If ``rows`` is None, ``x`` has all rows, and is returned.
    """
    return x if rows is None else _Put.apply(x, rows, shape)


class _Take(torch.autograd.Function):
    """See ``take``. No row is taken twice, so gradients are copied and not added."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        ctx.rows, ctx.shape = rows, x.shape
        return _taken(x, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return _placed(gradients[0], ctx.rows, ctx.shape), None


class _Put(torch.autograd.Function):
    """See ``put``."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rows: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        ctx.rows = rows
        return _placed(x, rows, shape)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return _taken(gradients[0], ctx.rows), None, None


def _taken(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return x.flatten(0, -2).index_select(0, rows)[None]


def _placed(x: torch.Tensor, rows: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    whole = x.new_zeros(shape)
    whole.view(-1, shape[-1]).index_copy_(0, rows, x[0])
    return whole
