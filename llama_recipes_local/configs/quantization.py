"""``quantization_config``: upstream's, and a name for 8 bits that ``main`` takes with FSDP."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from transformers import BitsAndBytesConfig

from llama_recipes_local._upstream import load

if TYPE_CHECKING:
    from llama_recipes_local._vendor.llama_recipes.configs.quantization import (
        quantization_config as _quantization_config,
    )
else:
    _quantization_config = load("configs.quantization").quantization_config


INT8 = "int8"
"""What ``main`` is told for "8bit", which it refuses with ``enable_fsdp``, DDP or not."""


@dataclass
class quantization_config(_quantization_config):
    """How 4-bit weights are made.

    In a run, ``compute_dtype`` and ``quant_storage`` follow its precision unless they are given.
    """

    def create_bnb_config(self, quantization: str) -> BitsAndBytesConfig:
        """Return transformers' configuration for "4bit" or "8bit"."""
        return super().create_bnb_config("8bit" if quantization == INT8 else quantization)
