"""Products of weights that are trained: outputs, and gradients of an input and of the weights.

What a product reads is also what is kept of it: ``Half`` keeps an input as it is, ``Eight`` in fp8.
``Eight`` turns weights into fp8 for each product and keeps none of them in it: to turn them around
for an input's gradient, as has to be done anyway, reads little more from the weights themselves.
"""

from typing import Protocol

import torch

from llama_recipes_local.kernels.fp8.scaled_rows import LARGEST, SMALLEST, Rows, product, quantize
from llama_recipes_local.kernels.fp8.swiglu_rows import swiglu_rows
from llama_recipes_local.kernels.fp8.turned import turned
from llama_recipes_local.kernels.lora.products import Given, Tensors
from llama_recipes_local.kernels.swiglu import swiglu


class Products(Protocol):
    """The products of weights that read the same input, each (features out, features in)."""

    def given(self, x: torch.Tensor) -> Tensors:
        """Return what is read of an input, (tokens, features in), and kept for the gradients."""

    def swiglu(self, gate: torch.Tensor, up: torch.Tensor) -> Tensors:
        """Return ``given`` of ``silu(gate) * up``, each (tokens, features in)."""

    def outputs(self, given: Tensors) -> Tensors:
        """Return each ``x @ weight.T``, (tokens, features out)."""

    def ready(self, gradients: Given) -> Given:
        """Return gradients of the outputs, each (tokens, features out), for both below."""

    def input_gradient(self, gradients: Given) -> torch.Tensor:
        """Return the sum of ``gradient @ weight``, (tokens, features in), of what is ready."""

    def weight_gradients(self, gradients: Given, given: Tensors) -> list[torch.Tensor | None]:
        """Return each ``gradient.T @ x``; None where it was added to the weight's gradient."""


def products(weights: Tensors, dtype: torch.dtype, in_fp8: bool) -> Products:
    """Return the products of weights for an input of a dtype."""
    return Eight(weights, dtype) if in_fp8 else Half(weights)


class Half:
    """See ``Products``."""

    def __init__(self, weights: Tensors) -> None:
        self.weights = weights

    def given(self, x: torch.Tensor) -> Tensors:
        """See ``Products``."""
        return (x,)

    def swiglu(self, gate: torch.Tensor, up: torch.Tensor) -> Tensors:
        """See ``Products``."""
        return (swiglu(gate, up),)

    def outputs(self, given: Tensors) -> Tensors:
        """See ``Products``."""
        (x,) = given
        return tuple(x @ weight.T for weight in self.weights)

    def ready(self, gradients: Given) -> Given:
        """See ``Products``."""
        return gradients

    def input_gradient(self, gradients: Given) -> torch.Tensor:
        """See ``Products``; it is rounded after each product, as autograd's sum is."""
        (first, *rest), (weight, *weights) = gradients.tensors, self.weights
        total = first @ weight
        for gradient, weight in zip(rest, weights, strict=True):
            total.addmm_(gradient, weight)
        return total

    def weight_gradients(self, gradients: Given, given: Tensors) -> list[torch.Tensor | None]:
        """See ``Products``."""
        pairs = zip(self.weights, gradients.tensors, strict=True)
        return [_added(weight, gradient, *given) for weight, gradient in pairs]


def _added(weight: torch.Tensor, gradient: torch.Tensor, x: torch.Tensor) -> torch.Tensor | None:
    """Return a weight's gradient, or have the product add it to the one of earlier micro-batches.

    That saves autograd's addition, which reads and writes all gradients once more. Where someone is
    to see the gradient of this pass alone, autograd adds it.
    """
    sofar = weight.grad
    watched = weight._backward_hooks or getattr(weight, "_post_accumulate_grad_hooks", None)
    if sofar is None or sofar.dtype != gradient.dtype or watched:
        return gradient.T @ x
    sofar.addmm_(gradient.T, x)
    return None


class Eight:
    """See ``Products``. A gradient of an input is one product over all weights.

    In a weight's gradient, a sum over tokens, a token's scale in the input is multiplied into the
    outputs' gradient, which has one scale for all of it then.
    """

    def __init__(self, weights: Tensors, dtype: torch.dtype) -> None:
        self.weights, self.dtype = weights, dtype
        self.scales: list[torch.Tensor] = []

    def given(self, x: torch.Tensor) -> Tensors:
        """See ``Products``."""
        return quantize(x).both()

    def swiglu(self, gate: torch.Tensor, up: torch.Tensor) -> Tensors:
        """See ``Products``."""
        return swiglu_rows(gate, up, wide=False)[1].both()

    def outputs(self, given: Tensors) -> Tensors:
        """See ``Products``."""
        found = []
        for weight in self.weights:
            made = quantize(weight.detach())
            found.append(product(Rows(*given), made, self.dtype))
            self.scales.append(made.both()[1])
        return tuple(found)

    def ready(self, gradients: Given) -> Given:
        """See ``Products``; the weights' scales are multiplied into the gradients."""
        made = quantize(*gradients.tensors, factors=tuple(self.scales), apart=True)
        return Given(gradients.tensors, made)

    def input_gradient(self, gradients: Given) -> torch.Tensor:
        """See ``Products``."""
        assert gradients.eight is not None
        weights = [weight.detach() for weight in self.weights]
        together = turned(weights, [scales.reciprocal() for scales in self.scales])
        return product(gradients.eight, Rows(together, None), self.dtype)

    def weight_gradients(self, gradients: Given, given: Tensors) -> list[torch.Tensor | None]:
        """See ``Products``."""
        assert gradients.eight is not None and gradients.eight.largest is not None
        values, scales = given
        largest = (gradients.eight.largest * scales).amax(1)
        bounds = largest.clamp(min=SMALLEST) / LARGEST
        factors = scales / bounds[:, None]
        x = Rows(turned([values]), None)
        found: list[torch.Tensor | None] = []
        for gradient, bound, factor in zip(gradients.tensors, bounds, factors, strict=True):
            rows = turned([gradient], [factor])
            found.append(product(Rows(rows, bound.repeat(len(rows))), x, self.dtype))
        return found
