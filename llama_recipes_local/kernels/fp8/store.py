"""Installs products in fp8 in a model's layers."""

from typing import Any

from torch import nn

from llama_recipes_local.kernels.fp8.linear import Fp8Linear
from llama_recipes_local.kernels.fp8.trained_linear import TrainedFp8Linear
from llama_recipes_local.library_patches import DECODER_LAYER

_MULTIPLE = 16  # of both lengths of a weight, as cuBLAS wants them


def keep_in_fp8(model: Any, adapted: bool) -> None:
    """Make the linear layers of a Llama's decoder layers multiply in fp8; print how many.

    Args:
        model: a Llama.
        adapted: whether an adapter is added later, so that all weights of the model are frozen.

    Raises:
        TargetMissingError: if transformers' layer does not have the parts that are replaced here.
    """
    if adapted:
        model.requires_grad_(False)
    frozen, trained, left = store(model.model.layers)
    kinds = {"frozen in fp8": frozen, "trained and multiplied in fp8": trained}
    found = [f"{number} linear layers {kind}" for kind, number in kinds.items() if number]
    if left:
        found.append(f"{left} of a size that fp8 is not multiplied in")
    print(f"--> Weights: {', '.join(found)}")


def store(layers: nn.ModuleList) -> tuple[int, int, int]:
    """Replace the frozen linear layers of decoder layers; make the trained ones multiply in fp8.

    The memory of a frozen weight is freed before the next one is converted.

    Returns:
        How many are frozen, how many are trained, and how many stayed as they were.
    """
    DECODER_LAYER.check()
    frozen = trained = left = 0
    parts: list[Any] = [part for layer in layers for part in (layer.self_attn, layer.mlp)]
    for part in parts:
        for name, linear in list(part.named_children()):
            if type(linear) is not nn.Linear:
                continue
            if linear.in_features % _MULTIPLE or linear.out_features % _MULTIPLE:
                left += 1
            elif linear.weight.requires_grad:
                setattr(part, name, TrainedFp8Linear(linear))
                trained += 1
            else:
                setattr(part, name, Fp8Linear(linear))
                frozen += 1
    return frozen, trained, left
