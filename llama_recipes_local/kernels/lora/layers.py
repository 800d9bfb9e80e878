"""Selects the layers of a model that ``projections`` computes, with reasons for the others."""

from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from llama_recipes_local.kernels.fp8.linear import Fp8Linear
from llama_recipes_local.kernels.lora.products import Weight
from llama_recipes_local.kernels.lora.projections import Adapter, Layer


@dataclass(frozen=True)
class Computed:
    """A layer that ``projections`` computes.

    Attributes:
        layer: the layer in the form that ``projections`` takes.
        dtype: the dtype that its weight is multiplied in; None means the input's.
        dropout: share of the adapter's inputs that are dropped; 0 in evaluation.
    """

    layer: Layer
    dtype: torch.dtype | None
    dropout: float = 0.0


def read(module: nn.Module) -> Computed | str:
    """Return a linear layer in the form that ``projections`` takes, or why it cannot be.

    Weights and matrices are read at each call, because FSDP gathers them again for each.
    """
    adapted = module if isinstance(module, LoraLayer) else None
    base: Any = module if adapted is None else adapted.get_base_layer()
    weight = _weight(base)
    if isinstance(weight, str):
        return weight
    bias = getattr(base, "bias", None)
    if base.weight.requires_grad or (bias is not None and bias.requires_grad):
        return "their weights are trained"
    if adapted is None or adapted.disable_adapters or adapted.merged:
        return Computed(Layer(weight[0], bias), weight[1])
    found = _adapter(adapted)
    if isinstance(found, str):
        return found
    return Computed(Layer(weight[0], bias, found[0]), weight[1], found[1])


def _adapter(module: Any) -> tuple[Adapter, float] | str:
    """Return the adapter and dropout of a layer of PEFT's, or why it is not computed here."""
    all_a = module.lora_A
    names = [name for name in module.active_adapters if name in all_a]
    if len(names) != 1:
        return f"{len(names)} adapters are active"
    (name,) = names
    variant = module.lora_variant.get(name)
    if variant is not None:
        return f"{type(variant).__name__.removesuffix('LinearVariant')} computes them otherwise"
    if module.lora_bias.get(name):
        return "LoRA has a bias"
    drops = module.lora_dropout[name]
    dropout = drops.p if isinstance(drops, nn.Dropout) and drops.training else 0.0
    a, b = all_a[name].weight, module.lora_B[name].weight
    return Adapter(a, b, float(module.scaling[name])), dropout


def _weight(base: Any) -> tuple[Weight, torch.dtype | None] | str:
    """Return a layer's weight and its dtype, or why it is not computed here."""
    weight: Any = base.weight
    if type(base) is Fp8Linear:
        return base.rows(), None
    if type(base) is nn.Linear:
        return lambda: weight, weight.dtype
    if type(base) is not _linear_4bit():
        return f"{type(base).__name__} has a computation of its own"
    from bitsandbytes.functional import dequantize_4bit

    # FSDP's weights have their scales in the layer, see ``parallel.quantized``
    state: Any = getattr(weight, "quant_state", None) or base.quant_state
    return partial(dequantize_4bit, weight, state), state.dtype


@cache
def _linear_4bit() -> type[nn.Module] | None:
    """Return bitsandbytes' 4-bit layer; None if it is not installed."""
    if find_spec("bitsandbytes") is None:
        return None
    from bitsandbytes.nn.modules import Linear4bit

    return Linear4bit
