"""A model without weights: its layers, and its tensors' names and shapes."""

import copy
from typing import Any, cast

import torch
import transformers

from llama_recipes_local.errors import refusal
from llama_recipes_local.models.top_layers import LlamaWithTopLayersForCausalLM, TopLayersConfig


def empty_model(config: transformers.PreTrainedConfig, vocabulary: int | None = None) -> Any:
    """Build a causal language model on the meta device, its head a tensor apart.

    Args:
        config: the model's configuration, with layers on top or without.
        vocabulary: rows of the embedding and the head; None means the configuration's.

    Raises:
        UsageError: if it is not the configuration of a language model alone.
    """
    if not hasattr(config, "vocab_size"):
        raise refusal(
            f"the model is of type {config.model_type}",
            "models that see pictures are neither merged nor converted",
            "name a Llama for text",
        )
    config = copy.deepcopy(config)
    config.vocab_size = vocabulary or config.vocab_size
    config.tie_word_embeddings = False
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        if getattr(config, "top_layers", 0):
            return LlamaWithTopLayersForCausalLM(cast(TopLayersConfig, config))
        return transformers.AutoModelForCausalLM.from_config(config)


def weight_name(model: torch.nn.Module, module: torch.nn.Module) -> str:
    """Return the name of a layer's weight."""
    (name,) = (name for name, each in model.named_modules() if each is module)
    return f"{name}.weight"
