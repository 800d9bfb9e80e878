"""The number of bits of a run's weights, and whether a flag or the model's folder sets it."""

from collections.abc import Mapping
from typing import Any

from llama_recipes_local import configs
from llama_recipes_local.run import Run

KEY = "quantization_config"
"""What a model's ``config.json`` says it with."""
BEFORE = "name the model before it was quantised: --model_name DIR"


def quantized_bits(train_config: configs.train_config) -> str | None:
    """Return "4bit", "8bit" or None; True is upstream's old name for "8bit"."""
    return "8bit" if train_config.quantization is True else train_config.quantization or None


def quantized_by(run: Run) -> str:
    """Return what quantises a run's weights, for messages: the flag or the model's folder."""
    if "quantization" in run.given:
        return f"--quantization {quantized_bits(run.train)}"
    return f"weights in {quantized_bits(run.train)} ({KEY} in the model's config.json)"


def or_unquantized(run: Run, fix: str) -> str:
    """Return a fix, or the unquantised model if not a flag but the folder quantises."""
    return fix if "quantization" in run.given else BEFORE


def packed_bits(config: Mapping[str, Any]) -> int:
    """Return the bits of the weights that a model's ``config.json`` says are GPTQ's or AWQ's.

    They stay packed, and are dequantised for each product; 0 if there are none.
    """
    stored = config.get(KEY)
    if not isinstance(stored, dict) or stored.get("quant_method") not in ("gptq", "awq"):
        return 0
    return 8 if stored.get("bits") == 8 else 4
