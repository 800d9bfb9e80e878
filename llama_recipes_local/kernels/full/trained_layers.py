"""Linear layers with trained weights, as functions that keep little for their gradients.

Layers with the same input are one function, so the input is kept once. The MLP keeps the outputs of
gate and up and recomputes the rest.
"""

from dataclasses import dataclass
from typing import Any

import torch

from llama_recipes_local.kernels.fp8.scaled_rows import LARGEST
from llama_recipes_local.kernels.full.trained_products import Eight, Half, Products
from llama_recipes_local.kernels.lora.products import Given, Tensors
from llama_recipes_local.kernels.lora.projections import Kept, own_precision, rows_of
from llama_recipes_local.kernels.norm import NormOf
from llama_recipes_local.kernels.swiglu import swiglu_backward


@dataclass(frozen=True)
class Trained:
    """Layers with the same input.

    Attributes:
        weights: each (features out, features in).
        in_fp8: whether they are multiplied in fp8; otherwise in the dtype of the input.
        bound: the number in fp8 that the largest weight of a row becomes.
    """

    weights: Tensors
    in_fp8: bool
    bound: float = LARGEST

    def products(self, dtype: torch.dtype) -> Products:
        """Return their products for an input of some dtype."""
        return Eight(self.weights, dtype, self.bound) if self.in_fp8 else Half(self.weights)


def project(x: torch.Tensor, layers: Trained, made_of: NormOf | None = None) -> Tensors:
    """Return the outputs of one to three layers, each (..., features out).

    Args:
        x: (..., features in).
        layers: the layers that read ``x``.
        made_of: what ``x`` is the norm of, if given: then ``x`` is recomputed instead of kept.
    """
    with own_precision(x):
        return _Project.apply(x, layers, made_of, *layers.weights)


def mlp(
    x: torch.Tensor, gate_up: Trained, down: Trained, made_of: NormOf | None = None
) -> torch.Tensor:
    """Return ``down(silu(gate(x)) * up(x))``, (..., features).

    Args:
        x: (..., features).
        gate_up: the layers that read ``x``.
        down: the last layer.
        made_of: as in ``project``.
    """
    kept = Kept()
    with own_precision(x):
        gate, up = _GateUp.apply(x, kept, gate_up, made_of, *gate_up.weights)
        out = _SwigluDown.apply(gate, up, kept, down, *down.weights)
    return out.view(*x.shape[:-1], -1)


class _Project(torch.autograd.Function):
    """See ``project``."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, layers: Trained, made_of: NormOf | None, *_: torch.Tensor
    ) -> Tensors:
        outputs, kept = _forward(ctx, x, layers, made_of)
        ctx.save_for_backward(*kept)
        return tuple(out.view(*x.shape[:-1], -1) for out in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        given = Given(tuple(rows_of(gradient) for gradient in gradients))
        dx, of_weights = _backward(ctx, given, ctx.saved_tensors)
        return dx, None, None, *of_weights


class _GateUp(torch.autograd.Function):
    """The first half of ``mlp``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        kept: Kept,
        layers: Trained,
        made_of: NormOf | None,
        *_: torch.Tensor,
    ) -> Tensors:
        outputs, rest = _forward(ctx, x, layers, made_of)
        ctx.save_for_backward(*outputs, *rest)
        kept.node = ctx
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        _, _, *kept = ctx.unpacked
        del ctx.unpacked
        dx, of_weights = _backward(ctx, Given(gradients), tuple(kept))
        return dx, None, None, None, *of_weights


class _SwigluDown(torch.autograd.Function):
    """The second half of ``mlp``."""

    @staticmethod
    def forward(
        ctx: Any,
        gate: torch.Tensor,
        up: torch.Tensor,
        kept: Kept,
        down: Trained,
        *_: torch.Tensor,
    ) -> torch.Tensor:
        ctx.products, ctx.kept = down.products(gate.dtype), kept
        (out,) = ctx.products.outputs(ctx.products.swiglu(gate, up))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        gate, up, *_ = ctx.kept.tensors()
        own = ctx.products
        ready = own.ready(Given((rows_of(gradients[0]),)))
        *both, hidden = swiglu_backward(own.input_gradient(ready), gate, up, again=True)
        return *both, None, None, *own.weight_gradients(ready, own.given(hidden))


def _forward(
    ctx: Any, x: torch.Tensor, layers: Trained, made_of: NormOf | None
) -> tuple[Tensors, Tensors]:
    """Return the outputs, each (tokens, features out), and what is kept of ``x``."""
    ctx.products, ctx.shape = layers.products(x.dtype), x.shape
    given = ctx.products.given(rows_of(x))
    ctx.made_of = None if made_of is None else (made_of.weight, made_of.eps)
    return ctx.products.outputs(given), given if made_of is None else (made_of.total,)


def _backward(
    ctx: Any, gradients: Given, kept: Tensors
) -> tuple[torch.Tensor | None, list[torch.Tensor | None]]:
    """Return the gradients of the input, if needed, and of the weights."""
    own = ctx.products
    ready = own.ready(gradients)
    dx = own.input_gradient(ready).view(ctx.shape) if ctx.needs_input_grad[0] else None
    if ctx.made_of is not None:
        kept = own.given(rows_of(NormOf(kept[0], *ctx.made_of).again()))
    return dx, own.weight_gradients(ready, kept)
