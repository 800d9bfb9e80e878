"""Loads the model of ``sft.py`` from its folder onto this rank's device, quantised if asked."""

import torch
from torch import nn
from transformers import PreTrainedModel
from trl import ModelConfig, get_quantization_config

from llama_recipes_local.fields import DTYPES, dtype_of
from llama_recipes_local.models import AutoModelForCausalLM


def load_model(config: ModelConfig, device: torch.device) -> PreTrainedModel:
    """Load the weights.

    Args:
        config: the model's configuration, of TRL.
        device: this rank's; the full model is placed on it.
    """
    return AutoModelForCausalLM.from_pretrained(
        config.model_name_or_path,
        torch_dtype=dtype_of(config.dtype) if config.dtype in DTYPES else config.dtype,
        attn_implementation=config.attn_implementation,
        quantization_config=get_quantization_config(config),
        device_map={"": device},
    )


def cast_trainable(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast the trainable parameters, which are an adapter's, to ``dtype``."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
