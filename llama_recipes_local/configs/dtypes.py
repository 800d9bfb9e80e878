"""The names of the dtypes of a run's weights and computation; imports no torch."""

from llama_recipes_local import configs
from llama_recipes_local.fields import DTYPES


def weight_dtype(train_config: configs.train_config, on_cpu: bool = False) -> str:
    """Return the dtype that weights are loaded in; see ``train_config.dtype``.

    With ``use_fp16``, weights that are trained stay in float32: a gradient scaler needs that.
    """
    if train_config.dtype != "auto":
        return DTYPES.get(train_config.dtype, train_config.dtype)
    if on_cpu:
        return "float32"
    if train_config.use_fp16:
        return "float16" if train_config.use_peft else "float32"
    return "bfloat16"


def compute_dtype(
    train_config: configs.train_config, fsdp_config: configs.fsdp_config, on_cpu: bool = False
) -> str:
    """Return the dtype that weights are multiplied in.

    That is half precision on CUDA with ``mixed_precision``, otherwise and with ``pure_bf16`` the
    weights' own dtype.
    """
    casts = train_config.mixed_precision and not fsdp_config.pure_bf16
    if on_cpu or not casts:
        return weight_dtype(train_config, on_cpu)
    return "float16" if train_config.use_fp16 else "bfloat16"
