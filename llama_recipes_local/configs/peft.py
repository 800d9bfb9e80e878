"""The adapter configurations: upstream's fields and defaults."""

from dataclasses import dataclass

from llama_recipes_local._upstream import load


@dataclass
class lora_config(load("configs.peft").lora_config):  # type: ignore[misc]
    """LoRA. Fields that are not listed here are upstream's, with upstream's defaults."""

    bias: str = "none"
    """"none", "all" or "lora_only"; upstream leaves it without a type, so no flag reaches it."""


llama_adapter_config = load("configs.peft").llama_adapter_config
prefix_config = load("configs.peft").prefix_config
