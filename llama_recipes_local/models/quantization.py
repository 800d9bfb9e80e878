"""Weights in 4 or 8 bits, by bitsandbytes.

Several 4-bit weights are packed into one element of the storage dtype; ``parallel.quantized``
explains how they are sharded.
"""

import torch
from torch import nn
from transformers import BitsAndBytesConfig, CompressedTensorsConfig, FineGrainedFP8Config
from transformers.quantizers.auto import AutoQuantizationConfig
from transformers.utils.quantization_config import QuantizationConfigMixin

from llama_recipes_local.library_patches import CPU_PACKING
from llama_recipes_local.model_folders.stored_quantization import StoredQuantization
from llama_recipes_local.models.precision import compute_dtype
from llama_recipes_local.parallel import device_type
from llama_recipes_local.run import Run
from llama_recipes_local.run.weight_bits import quantized_bits


def bnb_config(run: Run) -> BitsAndBytesConfig | None:
    """Return how transformers quantises a run's weights; None if it does not.

    ``compute_dtype`` and ``quant_storage`` follow the run's precision unless flags set them.
    """
    bits = quantized_bits(run.train)
    if bits is None:
        return None
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    settings = run.quantization
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.quant_type,
        bnb_4bit_use_double_quant=settings.use_double_quant,
        bnb_4bit_compute_dtype=_given_or_computed_in(run, "compute_dtype"),
        bnb_4bit_quant_storage=_given_or_computed_in(run, "quant_storage"),
    )


def reading_config(
    stored: StoredQuantization,
) -> QuantizationConfigMixin | None:
    """Return how transformers loads stored quantised weights; None means as their folder says.

    FP8 and compressed-tensors are dequantised: transformers' FP8 kernels have to be fetched and
    have no gradient, and neither have compressed-tensors' quantised activations. For GPTQ and AWQ,
    one of gptqmodel's kernels with a gradient is requested. The kernel that gptqmodel takes for
    such on the CPU loses the gradient after a validation, so there the plain one is used.
    """
    if stored.name in ("gptq", "awq"):
        backend = "auto_trainable" if device_type() == "cuda" else "torch"
        return AutoQuantizationConfig.from_dict({**stored.settings, "backend": backend})
    readers = {"fp8": FineGrainedFP8Config, "compressed-tensors": CompressedTensorsConfig}
    if stored.name not in readers:
        return None
    assert stored.method is not None
    title = stored.method.title
    print(f"--> The weights in {title} are dequantised when they are loaded, to be computed with")
    settings = {key: value for key, value in stored.settings.items() if key != "quant_method"}
    return readers[stored.name](**settings | {"dequantize": True})


def compute_plainly(model: nn.Module) -> None:
    """Keep compressed-tensors from quantising a dequantised model's activations, and its weights.

    transformers 5.17 leaves its layers in the model. Their rounding has no gradient.
    """
    for layer in model.modules():
        if hasattr(layer, "quantization_scheme"):
            layer.quantization_enabled = False  # type: ignore[assignment]


def describe(config: BitsAndBytesConfig) -> str:
    """Return the line that describes how weights are quantised, with automatic choices and why."""
    if config.load_in_8bit:
        return "--> Quantization: 8-bit (LLM.int8), by bitsandbytes"
    double = " with double quantisation" if config.bnb_4bit_use_double_quant else ""
    computed, stored = (
        str(dtype).removeprefix("torch.")
        for dtype in (config.bnb_4bit_compute_dtype, config.bnb_4bit_quant_storage)
    )
    return (
        f"--> Quantization: 4-bit {config.bnb_4bit_quant_type}{double}, computed in {computed} and "
        f"packed into {stored}, following the run's precision unless a flag sets them"
    )


def keep_packing(model: nn.Module) -> None:
    """Keep bitsandbytes from packing 4-bit weights again for inference on some CPUs.

    Validation would do that between steps, and it rounds the scales to bfloat16 for good.

    Raises:
        TargetMissingError: if bitsandbytes has no switch for it.
    """
    if not getattr(model, "is_loaded_in_4bit", False):
        return
    from bitsandbytes.nn.modules import Linear4bit

    CPU_PACKING.check()
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False


def _given_or_computed_in(run: Run, field: str) -> torch.dtype:
    if field in run.given:
        return getattr(run.quantization, field)
    return compute_dtype(run.train, run.fsdp)
