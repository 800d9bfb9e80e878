"""A frozen linear layer whose weight is kept in fp8."""

import torch
from torch import nn

from llama_recipes_local.kernels.fp8.scaled_rows import FP8, Rows, quantize
from llama_recipes_local.kernels.lora.dropout import Dropout
from llama_recipes_local.kernels.lora.projections import Layer, project


class Fp8Linear(nn.Linear):
    """A linear layer with a frozen weight of a byte an element and a scale a row.

    PEFT takes it for the linear layer that it is. The bytes are the ``weight``, (features out,
    features in) uint8, so that nothing that casts a model's floats touches them.
    """

    scales: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        """Keep the weight of ``linear``, which is not changed."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        made = quantize(linear.weight.detach())
        self.weight = nn.Parameter(made.values.view(torch.uint8), requires_grad=False)
        self.bias = linear.bias
        assert made.scales is not None
        # bytes too: float32 whatever the model is cast to
        self.register_buffer("scales", made.scales.view(torch.uint8), persistent=False)

    def rows(self) -> Rows:
        """Return the weight."""
        return Rows(self.weight.view(FP8), self.scales.view(torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., features out), of (..., features in) in the dtype of autocast or its own."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        (out,) = project(x, (Layer(self.rows(), self.bias),), Dropout())
        return out
