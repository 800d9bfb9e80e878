"""Upstream's ``configs.peft``: the configuration of each adapter method that is registered."""

from typing import Any

from llama_recipes_local.adapters.llama_adapter import llama_adapter_config
from llama_recipes_local.adapters.lora import lora_config
from llama_recipes_local.adapters.prefix import prefix_config
from llama_recipes_local.adapters.registry import METHODS

__all__ = ["llama_adapter_config", "lora_config", "prefix_config"]


def __getattr__(name: str) -> Any:
    """Return the configuration of a method that was registered since."""
    for method in METHODS.values():
        if method.config.__name__ == name:
            return method.config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
