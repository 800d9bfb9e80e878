"""Models and tokenizers from local folders; upstream's ``main`` imports transformers' names here."""

from transformers import BitsAndBytesConfig

from llama_recipes_local.models.loading import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MllamaForConditionalGeneration,
)

__all__ = [
    "AutoConfig",
    "AutoModelForCausalLM",
    "AutoProcessor",
    "AutoTokenizer",
    "BitsAndBytesConfig",
    "LlamaConfig",
    "LlamaForCausalLM",
    "MllamaForConditionalGeneration",
]
