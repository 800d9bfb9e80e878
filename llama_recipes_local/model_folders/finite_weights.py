"""Refuses weights that are not finite when they are written, of whatever they were made."""

from pathlib import Path

import torch

from llama_recipes_local.errors import refusal


def finite(name: str, tensor: torch.Tensor, source: Path) -> torch.Tensor:
    """Return a weight whose numbers are finite.

    Args:
        name: its name.
        tensor: the weight, in the dtype that it is written in.
        source: what it was made of, for the message.

    Raises:
        UsageError: if they are not.
    """
    if not tensor.is_floating_point() or tensor.isfinite().all():
        return tensor
    dtype = str(tensor.dtype).removeprefix("torch.")
    why = f"{source}, or what is added to it, has NaN, infinities or more than {dtype} holds"
    fix = "copy the files again, or take an earlier checkpoint"
    if tensor.dtype == torch.float16:
        fix += ", or --dtype bfloat16 where a dtype can be chosen"
    raise refusal(f"{name} is not finite", why, fix)
