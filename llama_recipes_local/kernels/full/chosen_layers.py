"""Selects the layers of a model that the functions of ``trained_layers`` compute."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from llama_recipes_local.kernels.fp8.scaled_rows import LARGEST
from llama_recipes_local.kernels.fp8.trained_linear import TrainedFp8Linear, drawn_bound
from llama_recipes_local.kernels.full.trained_layers import Trained


def computes(module: Any) -> bool:
    """Return whether a linear layer is trained and computed here: one without a bias."""
    known = type(module) in (nn.Linear, TrainedFp8Linear)
    return known and module.bias is None and module.weight.requires_grad


def read_trained(modules: Sequence[Any], x: torch.Tensor) -> Trained | None:
    """Return layers that read ``x``; None if one of them is not computed here.

    Weights are read at each call, because FSDP gathers them again for each. A validation is not in
    fp8: it is of the weights as they are saved.
    """
    kinds = {type(module) for module in modules}
    if len(kinds) > 1 or not all(map(computes, modules)):
        return None
    weights = tuple(module.weight for module in modules)
    in_fp8 = kinds == {TrainedFp8Linear} and modules[0].training
    if not in_fp8 and any(weight.dtype != x.dtype for weight in weights):
        return None
    return Trained(weights, in_fp8, drawn_bound() if in_fp8 else LARGEST)
