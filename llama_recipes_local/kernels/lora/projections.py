"""Frozen linear layers with LoRA, as functions that keep as little as possible for gradients.

Layers with the same input are one function, so the input is kept once; the gradients need only it
and the small outputs of A. The adapters' part is written first, and the matrix product adds the
frozen weights' part to it, without another pass over memory. Gradients of an input are added up in
the same way. The MLP keeps the outputs of gate and up and recomputes the rest.

The gradient of an input is rounded after each product that is added, as autograd's sum is.
"""

from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch

from llama_recipes_local.kernels.lora import thin
from llama_recipes_local.kernels.lora.dropout import Dropout
from llama_recipes_local.kernels.lora.products import Given, Part, Tensors, Weight, products
from llama_recipes_local.kernels.norm import NormOf

_ONCE = (1.0,)


@dataclass(frozen=True)
class Adapter:
    """LoRA's matrices for one layer.

    Attributes:
        a: (rank, features in).
        b: (features out, rank).
        scaling: factor of the product of both matrices.
    """

    a: torch.Tensor
    b: torch.Tensor
    scaling: float


@dataclass(frozen=True)
class Layer:
    """A frozen linear layer.

    Attributes:
        weight: (features out, features in) in fp8, or a function that returns it in the dtype of
            the input.
        bias: (features out,), or None.
        adapter: None if it has none.
    """

    weight: Weight
    bias: torch.Tensor | None = None
    adapter: Adapter | None = None


def project(
    x: torch.Tensor, layers: tuple[Layer, ...], dropout: Dropout, made_of: NormOf | None = None
) -> Tensors:
    """Return the outputs of layers with the same input, each (..., features out).

    Args:
        x: (..., features in).
        layers: one to three.
        dropout: dropout of the adapters' inputs.
        made_of: what ``x`` is the norm of, if given: then ``x`` is recomputed instead of kept.
    """
    with own_precision(x):
        return _Project.apply(x, layers, dropout, made_of, *matrices(layers))


def mlp(
    x: torch.Tensor,
    gate_up: tuple[Layer, Layer],
    down: Layer,
    dropouts: tuple[Dropout, Dropout],
    made_of: NormOf | None = None,
) -> torch.Tensor:
    """Return ``down(silu(gate(x)) * up(x))``, (..., features).

    Args:
        x: (..., features).
        gate_up: the layers that read ``x``.
        down: the last layer.
        dropouts: dropout of the inputs of the adapters of ``gate_up``, and of that of ``down``.
        made_of: as in ``project``.
    """
    kept = Kept()
    with own_precision(x):
        gate, up = _GateUp.apply(x, kept, gate_up, dropouts[0], made_of, *matrices(gate_up))
        out = _SwigluDown.apply(gate, up, kept, down, dropouts[1], *matrices((down,)))
    return out.view(*x.shape[:-1], -1)


class Group:
    """Layers with the same input, and the thin products of those with an adapter.

    The adapters' matrices are copied in the dtype of the input, because a kernel reads them many
    times.

    Attributes:
        layers: all of them.
        a: (ranks of all adapters, features in), the adapters' A stacked; None without adapters.
        b: B of each adapter, (rank, features out).
    """

    def __init__(self, layers: tuple[Layer, ...], dtype: torch.dtype) -> None:
        self.layers = layers
        adapters = {n: layer.adapter for n, layer in enumerate(layers) if layer.adapter is not None}
        self._places, self._adapters = list(adapters), list(adapters.values())
        self._scales = [adapter.scaling for adapter in self._adapters]
        self.a: torch.Tensor | None = None
        self.b: list[torch.Tensor] = []
        if adapters:
            all_a, all_b = [each.a for each in self._adapters], [each.b for each in self._adapters]
            self.a, self.b = thin.pack(all_a, all_b, dtype)
        self._products = products([layer.weight for layer in layers], dtype)

    def with_weights(self) -> "Group":
        """Return the group with weights already dequantised, for several products."""
        held = copy(self)
        held._products = self._products.with_weights()
        return held

    def forward(self, x: Given, dropout: Dropout) -> tuple[Tensors, torch.Tensor | None]:
        """Return the layers' outputs and the outputs of A.

        Args:
            x: (tokens, features in).
            dropout: dropout of A's input.

        Returns:
            Each (tokens, features out); and (tokens, ranks) or None.
        """
        (own,) = x.tensors
        low = part = None
        if self.a is not None:
            low = thin.product([own], [self.a], _ONCE, dropout)
            part = Part(low, self._places, self.b, self._scales)
        outputs = self._products.outputs(x, part)
        for layer, out in zip(self.layers, outputs, strict=True):
            if layer.bias is not None:
                out.add_(layer.bias)
        return tuple(outputs), low

    def lowered(self, gradients: Tensors) -> torch.Tensor | None:
        """Return the gradient of A's outputs, (tokens, ranks).

        Args:
            gradients: gradients of the layers' outputs, each (tokens, features out).
        """
        if self.a is None:
            return None
        return thin.product([gradients[n] for n in self._places], self.b, self._scales)

    def input_gradient(
        self, gradients: Given, low: torch.Tensor | None, dropout: Dropout
    ) -> torch.Tensor:
        """Return the gradient of the input, (tokens, features in).

        Args:
            gradients: gradients of the layers' outputs, each (tokens, features out).
            low: gradient of A's outputs, from ``lowered``.
            dropout: as in ``forward``.
        """
        part = None
        if self.a is not None:
            assert low is not None
            part = Part(low, (0,), [self.a], _ONCE, dropout)
        return self._products.input_gradient(gradients, part)

    def swiglu(self, gate: torch.Tensor, up: torch.Tensor) -> Given:
        """Return ``silu(gate) * up``, (tokens, features in), in the form that ``forward`` takes."""
        return self._products.swiglu(gate, up, wide=self.a is not None)

    def swiglu_backward(
        self, gradient: torch.Tensor, both: Tensors, again: bool, over: bool = False
    ) -> tuple[Given, torch.Tensor]:
        """Return the gradients of this group's outputs, which must be gate and up.

        The arguments and the second result are those of ``Products.swiglu_backward``.
        """
        wide = self.a is not None
        return self._products.swiglu_backward(gradient, both, wide, again, over)

    def matrix_gradients(
        self,
        gradients: Tensors,
        low_gradient: torch.Tensor | None,
        x: torch.Tensor | None,
        low: torch.Tensor | None,
        dropout: Dropout,
    ) -> torch.Tensor | None:
        """Return the gradients of the adapters' matrices, as ``thin.gradients`` does, or None.

        Args:
            gradients: gradients of the layers' outputs, each (tokens, features out).
            low_gradient: gradient of A's outputs, from ``lowered``.
            x: the input, (tokens, features in).
            low: A's outputs.
            dropout: as in ``forward``.
        """
        if low_gradient is None or x is None or low is None:
            return None
        own, ranks = [gradients[n] for n in self._places], [each.shape[0] for each in self.b]
        return thin.gradients(low_gradient, x, low, own, self._scales, ranks, dropout)

    def apart(self, gradients: torch.Tensor | None) -> list[torch.Tensor]:
        """Split the gradients of all matrices into those of each adapter's A and B, in turn."""
        if gradients is None:
            return []
        all_a = [each.a for each in self._adapters]
        matrices = [*all_a, *(each.b for each in self._adapters)]
        each = gradients.to(matrices[0].dtype).split([matrix.numel() for matrix in matrices])
        found = [own.view(matrix.shape) for own, matrix in zip(each, matrices, strict=True)]
        count = len(all_a)
        return [own for pair in zip(found[:count], found[count:], strict=True) for own in pair]


class _Project(torch.autograd.Function):
    """See ``project``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        layers: tuple[Layer, ...],
        dropout: Dropout,
        made_of: NormOf | None,
        *_: torch.Tensor,
    ) -> Tensors:
        ctx.group, ctx.dropout, ctx.shape = Group(layers, x.dtype), dropout, x.shape
        outputs, low = ctx.group.forward(Given((rows_of(x),)), dropout)
        ctx.save_for_backward(*(() if low is None else (_kept_of(ctx, x, made_of), low)))
        return tuple(out.view(*x.shape[:-1], -1) for out in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        kept, low = ctx.saved_tensors or (None, None)
        flat = tuple(rows_of(gradient) for gradient in gradients)
        dx, of_matrices = _backward(ctx, Given(flat), kept, low)
        return dx, None, None, None, *of_matrices


class Kept:
    """Gives the second half of an MLP what the first half kept, so that it keeps nothing itself.

    With activation checkpointing, the second half is then not computed again, because no gradient
    needs its output. Gradients in fp8, which autograd cannot carry, are passed from ``_SwigluDown``
    to the first half through this object.

    Attributes:
        node: the context of the first half.
    """

    node: Any = None

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Return the tensors that the first half kept; a checkpoint returns them only once."""
        self.node.unpacked = self.node.saved_tensors
        return self.node.unpacked


class _GateUp(torch.autograd.Function):
    """The first half of ``mlp``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        kept: Kept,
        layers: tuple[Layer, ...],
        dropout: Dropout,
        made_of: NormOf | None,
        *_: torch.Tensor,
    ) -> Tensors:
        ctx.group, ctx.dropout, ctx.shape = Group(layers, x.dtype), dropout, x.shape
        (gate, up), low = ctx.group.forward(Given((rows_of(x),)), dropout)
        rest = () if low is None else (_kept_of(ctx, x, made_of), low)
        ctx.save_for_backward(gate, up, *rest)
        kept.node, ctx.eight = ctx, None
        return gate, up

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        _, _, *rest = ctx.unpacked
        kept, low = rest or (None, None)
        given = Given(gradients, ctx.eight)
        del ctx.unpacked, ctx.eight
        dx, of_matrices = _backward(ctx, given, kept, low)
        return dx, None, None, None, None, *of_matrices


class _SwigluDown(torch.autograd.Function):
    """The second half of ``mlp``."""

    @staticmethod
    def forward(
        ctx: Any,
        gate: torch.Tensor,
        up: torch.Tensor,
        kept: Kept,
        down: Layer,
        dropout: Dropout,
        *_: torch.Tensor,
    ) -> torch.Tensor:
        ctx.group, ctx.kept, ctx.dropout = Group((down,), gate.dtype), kept, dropout
        (out,), ctx.low = ctx.group.forward(ctx.group.swiglu(gate, up), dropout)
        if not ctx.needs_input_grad[0]:  # then the first half kept nothing
            ctx.save_for_backward(gate, up)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        kept = ctx.kept.tensors() if ctx.needs_input_grad[0] else ctx.saved_tensors
        gate, up, *_ = kept
        gradients, group = (rows_of(gradients[0]),), ctx.group
        low = group.lowered(gradients)
        dh = group.input_gradient(Given(gradients), low, ctx.dropout)
        again, gate_up = group.a is not None, ctx.kept.node.group
        both, hidden = gate_up.swiglu_backward(dh, (gate, up), again)
        ctx.kept.node.eight = both.eight
        of_matrices = group.matrix_gradients(gradients, low, hidden, ctx.low, ctx.dropout)
        return *both.tensors, None, None, None, *group.apart(of_matrices)


def _kept_of(ctx: Any, x: torch.Tensor, made_of: NormOf | None) -> torch.Tensor:
    """Return what a function keeps of its input."""
    ctx.made_of = None if made_of is None else (made_of.weight, made_of.eps)
    return x if made_of is None else made_of.total


def _backward(
    ctx: Any, gradients: Given, kept: torch.Tensor | None, low: torch.Tensor | None
) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
    """Return the gradients of the input, if needed, and of the adapters' matrices."""
    group = ctx.group
    low_gradient = group.lowered(gradients.tensors)
    dx = None
    if ctx.needs_input_grad[0]:
        dx = group.input_gradient(gradients, low_gradient, ctx.dropout).view(ctx.shape)
    flat = None
    if kept is not None:
        flat = rows_of(kept if ctx.made_of is None else NormOf(kept, *ctx.made_of).again())
    of_matrices = group.matrix_gradients(gradients.tensors, low_gradient, flat, low, ctx.dropout)
    return dx, group.apart(of_matrices)


def matrices(layers: tuple[Layer, ...]) -> Tensors:
    """Return the trained matrices, in the order of their gradients."""
    adapters = [layer.adapter for layer in layers if layer.adapter is not None]
    return tuple(matrix for adapter in adapters for matrix in (adapter.a, adapter.b))


def rows_of(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` as (tokens, features), contiguous."""
    return x.reshape(-1, x.shape[-1]).contiguous()


def own_precision(x: torch.Tensor) -> AbstractContextManager[Any]:
    """Disable autocast, which might cast ``x``: matrices are cast here, also in a backward pass."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) != x.dtype:
        return torch.autocast(device, enabled=False)
    return _STAY


_STAY = nullcontext()
