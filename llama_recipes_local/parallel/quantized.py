"""Quantised weights as FSDP2 parameters.

bitsandbytes packs 4-bit weights into elements of a float dtype, and many of their bit patterns are
NaN. FSDP would cast them to its compute dtype, and on CUDA its copies in half precision turn every
NaN into the same one (https://github.com/huggingface/accelerate/issues/3983,
https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1945). So they are sharded as
float32, which is copied bit by bit. (Bytes would be too, but torch 2.11 shards only floats.) A
quantised model is cast by autocast, not by FSDP, see ``models.precision``.
"""

from typing import Any

import torch
from torch import nn

from llama_recipes_local.library_patches import SHARDED_4BIT


def is_quantized(model: nn.Module) -> bool:
    """Return whether ``model`` has 4-bit or 8-bit weights, with an adapter or without."""
    return any(getattr(model, f"is_loaded_in_{bits}bit", False) for bits in (4, 8))


def quantized_parameters(model: nn.Module) -> set[nn.Parameter]:
    """Return the parameters with 4-bit, 8-bit or fp8 weights."""
    parameters = list(model.parameters())
    found = {p for p in parameters if p.dtype == torch.uint8 and not p.requires_grad}
    if not is_quantized(model):
        return found
    from bitsandbytes.nn.modules import Int8Params, Params4bit

    return found | {p for p in parameters if isinstance(p, (Int8Params, Params4bit))}


def shard_as_words(model: nn.Module) -> None:
    """Replace the 4-bit weights of ``model`` by plain parameters, (words, 1) float32, in place.

    A word of 32 bits has eight weights; bitsandbytes quantises blocks of 64 and more, so no block's
    weights share a word with another's. bitsandbytes finds the scales of a plain parameter in its
    layer (https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1719); they are replicated.
    """
    if not is_quantized(model):
        return
    from bitsandbytes.nn.modules import Linear4bit

    SHARDED_4BIT.check()
    layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, Linear4bit)]
    for layer in layers:
        layer.quant_state = layer.weight.quant_state
        words = layer.weight.data.reshape(-1).view(torch.float32).reshape(-1, 1)
        layer.weight = nn.Parameter(words, requires_grad=False)
