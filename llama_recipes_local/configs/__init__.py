"""Upstream's configuration classes under upstream's names, with local paths for defaults."""

from llama_recipes_local.configs import datasets
from llama_recipes_local.configs.datasets import (
    alpaca_dataset,
    custom_dataset,
    grammar_dataset,
    guanaco_dataset,
    llamaguard_toxicchat_dataset,
    local_dataset,
    samsum_dataset,
)
from llama_recipes_local.configs.fsdp import fsdp_config
from llama_recipes_local.configs.peft import llama_adapter_config, lora_config, prefix_config
from llama_recipes_local.configs.quantization import quantization_config
from llama_recipes_local.configs.training import train_config
from llama_recipes_local.configs.wandb import wandb_config

__all__ = [
    "alpaca_dataset",
    "custom_dataset",
    "datasets",
    "fsdp_config",
    "grammar_dataset",
    "guanaco_dataset",
    "llama_adapter_config",
    "llamaguard_toxicchat_dataset",
    "local_dataset",
    "lora_config",
    "prefix_config",
    "quantization_config",
    "samsum_dataset",
    "train_config",
    "wandb_config",
]
