"""A linear layer whose weight is trained, with its products in fp8."""

import torch
from torch import nn

from llama_recipes_local.kernels.full.trained_layers import Trained, project


class TrainedFp8Linear(nn.Linear):
    """A linear layer with the same parameters, whose three products are in fp8.

    Optimisers, FSDP and checkpoints see an ordinary linear layer.
    """

    def __init__(self, linear: nn.Linear) -> None:
        """Use the parameters of ``linear``."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., features out) for (..., features in), in autocast's dtype or the input's."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        (out,) = project(x, Trained((self.weight,), in_fp8=True))
        return out if self.bias is None else out + self.bias
