"""Upstream's ``configs.peft``: the configurations are declared by the adapter methods."""

from llama_recipes_local.adapters.llama_adapter import llama_adapter_config
from llama_recipes_local.adapters.lora import lora_config
from llama_recipes_local.adapters.prefix import prefix_config

__all__ = ["llama_adapter_config", "lora_config", "prefix_config"]
