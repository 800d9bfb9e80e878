"""The model of ``sft.py``: loaded from its folder onto this rank's device, quantised if asked."""

from typing import Any

import torch
from torch import nn
from trl import ModelConfig, get_quantization_config

from llama_recipes_local.fields import DTYPES
from llama_recipes_local.models import AutoModelForCausalLM


def load_model(config: ModelConfig, device: torch.device) -> Any:
    """Load the weights.

    Args:
        config: TRL's configuration of the model.
        device: this rank's own, on which all of the model is placed.
    """
    return AutoModelForCausalLM.from_pretrained(
        config.model_name_or_path,
        torch_dtype=DTYPES.get(config.dtype, config.dtype),
        attn_implementation=config.attn_implementation,
        quantization_config=get_quantization_config(config),
        device_map={"": device},
    )


def cast_trained(model: nn.Module, dtype: torch.dtype) -> None:
    """Hold the parameters that are trained, which are an adapter's, in ``dtype``."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
