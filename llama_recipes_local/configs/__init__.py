"""Upstream's configuration classes under upstream's names, with local paths as defaults.

The configurations of data sets and adapter methods are declared in the modules of the data sets and
methods. They are looked up in ``datasets.registry`` and ``adapters.registry`` when they are used.
"""

from importlib import import_module
from typing import Any

from llama_recipes_local.configs.fsdp import fsdp_config
from llama_recipes_local.configs.quantization import quantization_config
from llama_recipes_local.configs.training import train_config
from llama_recipes_local.configs.wandb import wandb_config

__all__ = [
    "alpaca_dataset",
    "custom_dataset",
    "fsdp_config",
    "grammar_dataset",
    "guanaco_dataset",
    "llama_adapter_config",
    "llamaguard_toxicchat_dataset",
    "local_dataset",
    "lora_config",
    "mixed_dataset",
    "prefix_config",
    "quantization_config",
    "samsum_dataset",
    "train_config",
    "wandb_config",
]


def __getattr__(name: str) -> Any:
    """Return the configuration class of a data set or an adapter method."""
    if not name.startswith("__"):
        for module in ("datasets", "peft"):
            declared = import_module(f"{__name__}.{module}")
            if name == module:
                return declared
            if hasattr(declared, name):
                return getattr(declared, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
