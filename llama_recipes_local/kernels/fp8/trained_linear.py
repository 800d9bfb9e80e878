"""A linear layer whose weight is trained, with its products in fp8."""

import torch
from torch import nn
from torch.nn import functional as F

from llama_recipes_local.kernels.fp8.scaled_rows import LARGEST
from llama_recipes_local.kernels.full.trained_layers import Trained, project


class TrainedFp8Linear(nn.Linear):
    """A linear layer with the same parameters, whose three products are in fp8 in training.

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
        if not self.training:
            return F.linear(x, self.weight.to(x.dtype), self.bias)
        (out,) = project(x, Trained((self.weight,), True, drawn_bound()))
        return out if self.bias is None else out + self.bias


def drawn_bound() -> float:
    """Return a random number in fp8 that a row's largest weight becomes, from 224 to 448.

    Each bound rounds a weight to another side. With one bound for all steps the weights would learn
    to make up for their roundings, and would be the worse for it where they are used in bfloat16.
    It is drawn in host memory, where checkpoints of activations and of runs restore it.
    """
    return LARGEST / 2 ** float(torch.rand(()))
