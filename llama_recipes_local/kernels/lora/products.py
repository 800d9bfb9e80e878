"""Products of a group's frozen weights, in half precision or in fp8, with an adapter's part.

A group are layers that read the same input. ``Half`` writes an adapter's part first and has the
matrix product add to it, which costs it nothing. ``Eight`` turns an input or a group's gradients
into fp8 once, multiplies, and adds the adapter's part last: the product in fp8 does not add.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from llama_recipes_local.kernels.fp8 import values as fp8
from llama_recipes_local.kernels.lora import thin
from llama_recipes_local.kernels.lora.dropout import Dropout

Tensors = tuple[torch.Tensor, ...]
Weight = Callable[[], torch.Tensor] | fp8.Rows


@dataclass(frozen=True)
class Part:
    """An adapter's part of a product, ``scale * dropped(low @ matrix)``.

    Attributes:
        low: (tokens, rank); its last stride is 1.
        matrix: (rank, features), contiguous.
        scale: its factor.
        dropout: of the part.
    """

    low: torch.Tensor
    matrix: torch.Tensor
    scale: float = 1.0
    dropout: Dropout = thin.NONE

    def write(self) -> torch.Tensor:
        """Return it, (tokens, features)."""
        return thin.expansion(self.low, self.matrix, self.scale, self.dropout)

    def add_to(self, out: torch.Tensor) -> torch.Tensor:
        """Add it to ``out``, (tokens, features), and return that."""
        return thin.expansion(self.low, self.matrix, self.scale, self.dropout, onto=out)


class Products(Protocol):
    """The products of a group's weights, each (features out, features in)."""

    def outputs(self, x: torch.Tensor, parts: list[Part | None]) -> list[torch.Tensor]:
        """Return each layer's ``x @ weight.T`` with its part, (tokens, features out).

        Args:
            x: (tokens, features in).
            parts: for each layer.
        """

    def input_gradient(self, gradients: Tensors, part: Part | None) -> torch.Tensor:
        """Return the sum of ``gradient @ weight`` over the layers, and of the part.

        Args:
            gradients: of the layers' outputs, each (tokens, features out).
            part: (tokens, features in).
        """

    def with_weights(self) -> "Products":
        """Return what has its weights at hand, unpacked, for several products."""


def products(weights: list[Weight], dtype: torch.dtype) -> Products:
    """Return what multiplies a group's weights, in fp8 if all are, else in ``dtype``."""
    rows = tuple(weight for weight in weights if isinstance(weight, fp8.Rows))
    if len(rows) == len(weights):
        return Eight(rows)
    return Half([partial(w.wide, dtype) if isinstance(w, fp8.Rows) else w for w in weights])


class Half:
    """See ``Products``. Weights may be made anew at each call, as from 4 bits."""

    def __init__(self, weights: list[Callable[[], torch.Tensor]]) -> None:
        self.weights = weights

    def outputs(self, x: torch.Tensor, parts: list[Part | None]) -> list[torch.Tensor]:
        """See ``Products``."""
        return [
            x @ weight().T if part is None else part.write().addmm_(x, weight().T)
            for weight, part in zip(self.weights, parts, strict=True)
        ]

    def input_gradient(self, gradients: Tensors, part: Part | None) -> torch.Tensor:
        """See ``Products``; it is rounded after each product, as autograd's sum is."""
        total = None if part is None else part.write()
        for weight, gradient in zip(self.weights, gradients, strict=True):
            total = gradient @ weight() if total is None else total.addmm_(gradient, weight())
        assert total is not None
        return total

    def with_weights(self) -> "Half":
        """See ``Products``."""
        return Half([partial(_same, weight()) for weight in self.weights])


class Eight:
    """See ``Products``. A gradient of an input is one product over all layers."""

    def __init__(self, weights: tuple[fp8.Rows, ...]) -> None:
        self.weights = weights
        self._together: fp8.Rows | None = None

    def outputs(self, x: torch.Tensor, parts: list[Part | None]) -> list[torch.Tensor]:
        """See ``Products``."""
        eight = fp8.quantize(x)
        found = []
        for weight, part in zip(self.weights, parts, strict=True):
            out = fp8.product(eight, weight, x.dtype)
            found.append(out if part is None else part.add_to(out))
        return found

    def input_gradient(self, gradients: Tensors, part: Part | None) -> torch.Tensor:
        """See ``Products``; the weights' scales are multiplied into the gradients."""
        factors = tuple(weight.scales for weight in self.weights if weight.scales is not None)
        eight = fp8.quantize(*gradients, factors=factors)
        total = fp8.product(eight, self.together(), gradients[0].dtype)
        return total if part is None else part.add_to(total)

    def together(self) -> fp8.Rows:
        """Return the weights' values, transposed and one beside another."""
        return self._together or fp8.Rows(fp8.side_by_side(self.weights), None)

    def with_weights(self) -> "Eight":
        """See ``Products``."""
        held = Eight(self.weights)
        held._together = self.together()
        return held


def _same(weight: torch.Tensor) -> torch.Tensor:
    return weight
