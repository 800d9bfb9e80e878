"""Products of a group's frozen weights, in half precision or in fp8, with the adapters' parts.

A group is a set of layers with the same input. ``Half`` writes the adapters' part first and lets
the matrix product add to it, which costs nothing. ``Eight`` converts an input, or a group's
gradients, to fp8 once, multiplies, and adds the adapters' part last, because the product in fp8
cannot add.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from llama_recipes_local.kernels.fp8 import scaled_rows as fp8
from llama_recipes_local.kernels.fp8.swiglu_rows import swiglu_backward_rows, swiglu_rows
from llama_recipes_local.kernels.lora import thin
from llama_recipes_local.kernels.lora.dropout import Dropout
from llama_recipes_local.kernels.swiglu import swiglu, swiglu_backward

Tensors = tuple[torch.Tensor, ...]
Weight = Callable[[], torch.Tensor] | fp8.Rows


@dataclass(frozen=True)
class Given:
    """A factor of products: an input, or gradients of a group's outputs.

    Attributes:
        tensors: each (tokens, features); undefined contents of that shape if only fp8 is needed.
        eight: all of them side by side in fp8; None if they are not converted yet.
    """

    tensors: Tensors
    eight: fp8.Rows | None = None


@dataclass(frozen=True)
class Part:
    """The adapters' parts of products, each ``scale * dropped(own part of low @ matrix)``.

    Attributes:
        low: (tokens, ranks of all); its last stride is 1.
        places: the product that each part belongs to, by index.
        matrices: each (rank, features), contiguous.
        scales: a factor for each part.
        dropout: dropout of the parts.
    """

    low: torch.Tensor
    places: Sequence[int]
    matrices: Sequence[torch.Tensor]
    scales: Sequence[float]
    dropout: Dropout = thin.NONE

    def write(self) -> dict[int, torch.Tensor]:
        """Return the parts by the index of their product, each (tokens, features)."""
        made = thin.expansion(self.low, self.matrices, self.scales, self.dropout)
        return dict(zip(self.places, made, strict=True))

    def add_to(self, out: list[torch.Tensor]) -> None:
        """Add the parts to products, each (tokens, features)."""
        onto = [out[place] for place in self.places]
        thin.expansion(self.low, self.matrices, self.scales, self.dropout, onto)


class Products(Protocol):
    """The products of a group's weights, each (features out, features in)."""

    def outputs(self, x: Given, part: Part | None) -> list[torch.Tensor]:
        """Return each layer's ``x @ weight.T`` with its part, (tokens, features out).

        Args:
            x: (tokens, features in).
            part: the adapters' part; None if no layer has an adapter.
        """

    def input_gradient(self, gradients: Given, part: Part | None) -> torch.Tensor:
        """Return the sum of ``gradient @ weight`` over the layers, plus the adapters' part.

        Args:
            gradients: of the layers' outputs, each (tokens, features out).
            part: (tokens, features in).
        """

    def swiglu(self, gate: torch.Tensor, up: torch.Tensor, wide: bool) -> Given:
        """Return ``silu(gate) * up`` in the form that ``outputs`` takes.

        Args:
            gate: (tokens, features in).
            up: (tokens, features in).
            wide: whether the result is needed in half precision too.
        """

    def swiglu_backward(
        self, gradient: torch.Tensor, both: Tensors, wide: bool, again: bool, over: bool = False
    ) -> tuple[Given, torch.Tensor]:
        """Return gradients of gate and up for ``input_gradient``, and the result if ``again``.

        Args:
            gradient: gradient of the result; it is overwritten.
            both: gate and up, each (tokens, features out).
            wide: whether the gradients are needed in half precision too.
            again: whether the result is needed; otherwise it is undefined.
            over: whether ``both`` may be overwritten.
        """

    def with_weights(self) -> "Products":
        """Return the same products with weights already dequantised, for several calls."""


def products(weights: list[Weight], dtype: torch.dtype) -> Products:
    """Return the products of a group's weights: in fp8 if all are stored so, else in ``dtype``."""
    rows = tuple(weight for weight in weights if isinstance(weight, fp8.Rows))
    if len(rows) == len(weights):
        return Eight(rows, dtype)
    return Half([partial(w.wide, dtype) if isinstance(w, fp8.Rows) else w for w in weights])


class Half:
    """See ``Products``. Weights may be made at each call, for example from 4 bits."""

    def __init__(self, weights: list[Callable[[], torch.Tensor]]) -> None:
        self.weights = weights

    def outputs(self, x: Given, part: Part | None) -> list[torch.Tensor]:
        """See ``Products``."""
        (own,) = x.tensors
        written = {} if part is None else part.write()
        return [
            written[place].addmm_(own, weight().T) if place in written else own @ weight().T
            for place, weight in enumerate(self.weights)
        ]

    def input_gradient(self, gradients: Given, part: Part | None) -> torch.Tensor:
        """See ``Products``; the sum is rounded after each product, as autograd's sum is."""
        total = None if part is None else part.write()[0]
        for weight, gradient in zip(self.weights, gradients.tensors, strict=True):
            total = gradient @ weight() if total is None else total.addmm_(gradient, weight())
        assert total is not None
        return total

    def swiglu(self, gate: torch.Tensor, up: torch.Tensor, wide: bool) -> Given:
        """See ``Products``."""
        return Given((swiglu(gate, up),))

    def swiglu_backward(
        self, gradient: torch.Tensor, both: Tensors, wide: bool, again: bool, over: bool = False
    ) -> tuple[Given, torch.Tensor]:
        """See ``Products``."""
        gate, up = both
        *found, hidden = swiglu_backward(gradient, gate, up, again, over)
        return Given(tuple(found)), hidden

    def with_weights(self) -> "Half":
        """See ``Products``."""
        return Half([partial(_same, weight()) for weight in self.weights])


class Eight:
    """See ``Products``. The gradient of an input is one product over all layers."""

    def __init__(self, weights: tuple[fp8.Rows, ...], dtype: torch.dtype) -> None:
        self.weights, self.dtype = weights, dtype
        self._holds = False
        self._together: fp8.Rows | None = None

    def outputs(self, x: Given, part: Part | None) -> list[torch.Tensor]:
        """See ``Products``."""
        eight = x.eight or fp8.quantize(*x.tensors)
        found = [fp8.product(eight, weight, self.dtype) for weight in self.weights]
        if part is not None:
            part.add_to(found)
        return found

    def input_gradient(self, gradients: Given, part: Part | None) -> torch.Tensor:
        """See ``Products``; the weights' scales are multiplied into the gradients."""
        eight = gradients.eight or fp8.quantize(*gradients.tensors, factors=self._scales())
        total = fp8.product(eight, self.together(), self.dtype)
        if part is not None:
            part.add_to([total])
        return total

    def swiglu(self, gate: torch.Tensor, up: torch.Tensor, wide: bool) -> Given:
        """See ``Products``."""
        hidden, eight = swiglu_rows(gate, up, wide)
        return Given((hidden,), eight)

    def swiglu_backward(
        self, gradient: torch.Tensor, both: Tensors, wide: bool, again: bool, over: bool = False
    ) -> tuple[Given, torch.Tensor]:
        """See ``Products``."""
        gate, up = both
        found, eight, hidden = swiglu_backward_rows(gradient, gate, up, self._scales(), wide, again)
        return Given(found, eight), hidden

    def _scales(self) -> tuple[torch.Tensor, ...]:
        return tuple(weight.scales for weight in self.weights if weight.scales is not None)

    def together(self) -> fp8.Rows:
        """Return the weights' values, transposed and side by side."""
        if self._together is not None:
            return self._together
        made = fp8.Rows(fp8.side_by_side(self.weights), None)
        if self._holds:
            self._together = made
        return made

    def with_weights(self) -> "Eight":
        """See ``Products``. Weights are transposed at the first gradient, if there is one."""
        held = Eight(self.weights, self.dtype)
        held._holds = True
        return held


def _same(weight: torch.Tensor) -> torch.Tensor:
    return weight
