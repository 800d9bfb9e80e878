"""The dtype that weights are stored in, and the dtype that they are multiplied in."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from torch import nn
from torch.distributed.fsdp import FSDPModule

from llama_recipes_local import configs
from llama_recipes_local.configs import dtypes
from llama_recipes_local.fields import dtype_of
from llama_recipes_local.library_patches import ROTARY_FREQUENCIES
from llama_recipes_local.parallel import compute_device, device_type, is_quantized


def weight_dtype(train_config: configs.train_config) -> torch.dtype:
    """Return the dtype that weights are loaded in; see ``train_config.dtype``.

    With ``use_fp16``, weights that are trained stay in float32: a gradient scaler needs that.
    """
    return dtype_of(dtypes.weight_dtype(train_config, device_type() == "cpu"))


class _KeepsBuffers(nn.Module):
    """A layer whose buffers keep their dtype when the model is cast."""

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        kept = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in self._buffers.items():
            if buffer is not None and (old := kept[name]) is not None and buffer.dtype != old.dtype:
                self._buffers[name] = old.to(buffer.device)
        return self


def keep_frequencies(model: nn.Module) -> None:
    """Keep rotary frequencies in float32 when ``model`` is cast, as ``main`` does for pure_bf16.

    Positions are multiplied by them: rounded to bfloat16, an angle of 512 is off by up to one, so
    training would see distant tokens at other positions than the saved model does.
    """
    ROTARY_FREQUENCIES.check()
    for module in model.modules():
        if "inv_freq" in module._buffers:
            cls = type(module)
            module.__class__ = type(cls.__name__, (_KeepsBuffers, cls), {})


def compute_dtype(
    train_config: configs.train_config, fsdp_config: configs.fsdp_config
) -> torch.dtype:
    """Return the dtype that weights are multiplied in.

    That is half precision on CUDA with ``mixed_precision``, otherwise and with ``pure_bf16`` the
    weights' own dtype.
    """
    on_cpu = device_type() == "cpu"
    return dtype_of(dtypes.compute_dtype(train_config, fsdp_config, on_cpu))


def compute_context(
    model: nn.Module, train_config: configs.train_config
) -> AbstractContextManager[None]:
    """Return the context for a model's forward passes between two weight updates.

    FSDP2 casts parameters as it gathers them, except for a quantised model. Otherwise autocast
    does, if ``mixed_precision`` is on and a parameter is in float32: the adapters, or all weights.
    On one device autocast caches its casts until the context is left, so a context that spans
    optimiser steps would train on stale weights.
    """
    floats = any(parameter.dtype == torch.float32 for parameter in model.parameters())
    on_cuda = compute_device(model).type == "cuda"
    cast_by_fsdp = isinstance(model, FSDPModule) and not is_quantized(model)
    if cast_by_fsdp or not (floats and on_cuda and train_config.mixed_precision):
        return contextlib.nullcontext()
    compute = torch.float16 if train_config.use_fp16 else torch.bfloat16
    return _autocast(model, compute)


@contextlib.contextmanager
def _autocast(model: nn.Module, dtype: torch.dtype) -> Any:
    """Autocast to ``dtype``, without PEFT's cast of each input to its adapter's float32.

    With FSDP nothing is cached: the gradient of a cast that an earlier micro-batch made would
    arrive after the unit's gradients were reduced, and be added a step late.
    """
    uncast = disable_input_dtype_casting(model) if isinstance(model, PeftModel) else None
    keeps = not isinstance(model, FSDPModule)
    device = compute_device(model).type
    with (
        uncast or contextlib.nullcontext(),
        torch.autocast(device, dtype=dtype, cache_enabled=keeps),
    ):
        yield
