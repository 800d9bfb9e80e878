"""Puts layers in fp8 into a model."""

from typing import Any

from torch import nn

from llama_recipes_local.kernels.fp8.linear import Fp8Linear
from llama_recipes_local.library_patches import DECODER_LAYER

_MULTIPLE = 16  # of both lengths of a weight, as cuBLAS wants them


def keep_in_fp8(model: Any, adapted: bool) -> None:
    """Replace the frozen linear layers of a Llama's decoder layers, and print how many.

    Args:
        model: a Llama.
        adapted: whether an adapter is put on it, so that all its weights are frozen.

    Raises:
        TargetMissingError: if transformers' layer is not made of what is replaced here.
    """
    if adapted:
        model.requires_grad_(False)
    replaced, left = store(model.model.layers)
    other = f", {left} are of a size that fp8 is not multiplied in" if left else ""
    print(f"--> Frozen weights in fp8: {replaced} linear layers{other}")


def store(layers: nn.ModuleList) -> tuple[int, int]:
    """Replace the frozen linear layers of decoder layers.

    A weight's memory is given back before the next one is converted.

    Returns:
        How many were replaced, and how many are frozen and were not.
    """
    DECODER_LAYER.check()
    replaced = left = 0
    parts: list[Any] = [part for layer in layers for part in (layer.self_attn, layer.mlp)]
    for part in parts:
        for name, linear in list(part.named_children()):
            if type(linear) is not nn.Linear or linear.weight.requires_grad:
                continue
            if linear.in_features % _MULTIPLE or linear.out_features % _MULTIPLE:
                left += 1
                continue
            setattr(part, name, Fp8Linear(linear))
            replaced += 1
    return replaced, left
