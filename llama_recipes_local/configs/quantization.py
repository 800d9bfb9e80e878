"""``quantization_config``: upstream's, and a name for 8 bits that ``main`` takes with FSDP."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
from transformers import BitsAndBytesConfig

from llama_recipes_local._upstream import load
from llama_recipes_local.fields import EVALUATION, Choices, Resume

if TYPE_CHECKING:
    from llama_recipes_local._vendor.llama_recipes.configs.quantization import (
        quantization_config as upstream,
    )
else:
    upstream = load("configs.quantization").quantization_config


INT8 = "int8"
"""What ``main`` gets for "8bit", which it refuses with ``enable_fsdp``, DDP or not."""


@dataclass
class quantization_config(upstream):
    """How 4-bit weights are made.

    In a run, ``compute_dtype`` and ``quant_storage`` follow its precision unless they are given.
    """

    quant_type: Annotated[str, Choices("nf4", "fp4"), Resume.METHOD, EVALUATION] = (
        upstream.quant_type
    )
    """"nf4" or "fp4"."""

    compute_dtype: Annotated[torch.dtype, Resume.METHOD] = upstream.compute_dtype
    """dtype that 4-bit weights are multiplied in; by default the compute dtype of the run."""

    use_double_quant: Annotated[bool, Resume.METHOD, EVALUATION] = upstream.use_double_quant
    """Quantise the scales of 4-bit weights too."""

    quant_storage: Annotated[torch.dtype, Resume.METHOD] = upstream.quant_storage
    """dtype that 4-bit weights are stored in; by default what FSDP needs."""

    def create_bnb_config(self, quantization: str) -> BitsAndBytesConfig:
        """Return transformers' configuration for "4bit" or "8bit"."""
        return super().create_bnb_config("8bit" if quantization == INT8 else quantization)
