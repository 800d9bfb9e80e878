"""Models and tokenizers from local folders, under transformers' names, for upstream's ``main``."""

from transformers import BitsAndBytesConfig

from llama_recipes_local.models.freezing import freeze_transformer_layers
from llama_recipes_local.models.loading import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MllamaForConditionalGeneration,
)
from llama_recipes_local.models.quantization import bnb_config

__all__ = [
    "AutoConfig",
    "AutoModelForCausalLM",
    "AutoProcessor",
    "AutoTokenizer",
    "BitsAndBytesConfig",
    "LlamaConfig",
    "LlamaForCausalLM",
    "MllamaForConditionalGeneration",
    "bnb_config",
    "freeze_transformer_layers",
]
