"""A frozen linear layer whose weight is stored in fp8."""

import torch
from torch import nn

from llama_recipes_local.kernels.fp8.scaled_rows import FP8, Rows, quantize
from llama_recipes_local.kernels.lora.dropout import Dropout
from llama_recipes_local.kernels.lora.projections import Layer, project


class Fp8Linear(nn.Linear):
    """A linear layer with a frozen weight, stored in a byte an element and a scale a row.

    It is a subclass of ``nn.Linear``, so PEFT adapts it. ``weight`` holds the bytes, (features out,
    features in) uint8, so that casting a model's floating-point tensors does not change it.
    """

    scales: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        """Convert the weight of ``linear``, which itself is not changed."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        made = quantize(linear.weight.detach())
        self.weight = nn.Parameter(made.values.view(torch.uint8), requires_grad=False)
        self.bias = linear.bias
        assert made.scales is not None
        # bytes too: float32 whatever the model is cast to
        self.register_buffer("scales", made.scales.view(torch.uint8), persistent=False)

    def rows(self) -> Rows:
        """Return the weight as a matrix in fp8."""
        return Rows(self.weight.view(FP8), self.scales.view(torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., features out) for (..., features in), in autocast's dtype or the input's."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        (out,) = project(x, (Layer(self.rows(), self.bias),), Dropout())
        return out
