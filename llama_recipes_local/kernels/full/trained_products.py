"""Products of trained weights: outputs, and gradients of the input and of the weights.

What a product reads of its input is also what is kept of it: ``Half`` keeps the input as it is,
``Eight`` in fp8. ``Eight`` converts weights to fp8 for each product and keeps no converted copy.
The gradient of the input needs a transposed copy anyway, and reading the original weights for it
costs little more.
"""

from typing import Protocol

import torch

from llama_recipes_local.kernels.fp8.scaled_rows import LARGEST, SMALLEST, Rows, product, quantize
from llama_recipes_local.kernels.fp8.swiglu_rows import swiglu_rows
from llama_recipes_local.kernels.fp8.turned import turned
from llama_recipes_local.kernels.lora.products import Given, Tensors
from llama_recipes_local.kernels.swiglu import swiglu


class Products(Protocol):
    """The products of weights with the same input, each (features out, features in)."""

    def given(self, x: torch.Tensor) -> Tensors:
        """Return an input, (tokens, features in), in the form that is multiplied and kept."""

    def swiglu(self, gate: torch.Tensor, up: torch.Tensor) -> Tensors:
        """Return ``given`` for ``silu(gate) * up``, each (tokens, features in)."""

    def outputs(self, given: Tensors) -> Tensors:
        """Return each ``x @ weight.T``, (tokens, features out)."""

    def ready(self, gradients: Given) -> Given:
        """Return gradients of the outputs, each (tokens, features out), in the form used below."""

    def input_gradient(self, gradients: Given) -> torch.Tensor:
        """Return the sum of ``gradient @ weight``, (tokens, features in), for ready gradients."""

    def weight_gradients(self, gradients: Given, given: Tensors) -> list[torch.Tensor | None]:
        """Return each ``gradient.T @ x``; None if it was added to the weight's gradient already."""


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
        """See ``Products``; the sum is rounded after each product, as autograd's sum is."""
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
    """Return a weight's gradient; or add it to that of earlier micro-batches and return None.

    The product itself adds, which saves autograd's addition and its extra pass over all gradients.
    If something observes the gradient of this pass alone, such as a hook, autograd adds it.
    """
    sofar = weight.grad
    watched = weight._backward_hooks or getattr(weight, "_post_accumulate_grad_hooks", None)
    if sofar is None or sofar.dtype != gradient.dtype or watched:
        return gradient.T @ x
    sofar.addmm_(gradient.T, x)
    return None


class Eight:
    """See ``Products``. The gradient of an input is one product over all weights.

    A weight's gradient is a sum over tokens, so scales by token cannot be taken out of the sum:
    those of the input are multiplied into the outputs' gradient, which then has a scale for each
    feature.
    """

    def __init__(self, weights: Tensors, dtype: torch.dtype, bound: float = LARGEST) -> None:
        self.weights, self.dtype, self.bound = weights, dtype, bound
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
            made = quantize(weight.detach(), bound=self.bound)
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
