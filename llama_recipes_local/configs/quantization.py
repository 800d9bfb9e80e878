"""``quantization_config``: upstream's, and another name for 8 bits that ``main`` accepts with FSDP.

It is not upstream's class, because that imports torch and transformers; it has the same fields and
defaults.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from llama_recipes_local._upstream import fall_back, load
from llama_recipes_local.fields import (
    DTYPES,
    EVALUATION,
    Choices,
    LibraryDefault,
    LibraryType,
    Resume,
    show_defaults,
)

if TYPE_CHECKING:
    from torch import dtype as _dtype
    from transformers import BitsAndBytesConfig
else:
    _dtype = LibraryType("torch", "dtype", tuple(DTYPES))

INT8 = "int8"
"""What ``main`` gets for "8bit", which it refuses with ``enable_fsdp``, DDP or not."""


@dataclass
class quantization_config:
    """How 4-bit weights are made.

    In a run, ``compute_dtype`` and ``quant_storage`` follow its precision unless they are given.
    """

    quant_type: Annotated[str, Choices("nf4", "fp4"), Resume.METHOD, EVALUATION] = "fp4"
    """"nf4" or "fp4"."""

    compute_dtype: Annotated[_dtype, Resume.METHOD] = field(
        default_factory=LibraryDefault(_dtype, "bfloat16")
    )
    """dtype that 4-bit weights are multiplied in; by default the compute dtype of the run."""

    use_double_quant: Annotated[bool, Resume.METHOD, EVALUATION] = False
    """Quantise the scales of 4-bit weights too."""

    quant_storage: Annotated[_dtype, Resume.METHOD] = field(
        default_factory=LibraryDefault(_dtype, "bfloat16")
    )
    """dtype that 4-bit weights are stored in; by default what FSDP needs."""

    def create_bnb_config(self, quantization: str) -> "BitsAndBytesConfig":
        """Return transformers' configuration for "4bit" or "8bit"."""
        upstream: Any = load("configs.quantization").quantization_config
        bits = "8bit" if quantization == INT8 else quantization
        made: BitsAndBytesConfig = upstream.create_bnb_config(self, bits)
        return made


show_defaults(quantization_config)

__getattr__ = fall_back("configs.quantization")
