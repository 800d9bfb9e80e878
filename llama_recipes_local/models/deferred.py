"""Models whose weights are still in their files, for ``--low_cpu_fsdp``.

A hollow parameter has its shape, dtype and device, the memory of one number, and a note of where
its weights are stored. An adapter can be put on such a model as on any other; ``parallel.shard_loading``
gives each rank its share of the weights once the model is sharded.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.utils import GENERATION_CONFIG_NAME

from llama_recipes_local.errors import TrainingError
from llama_recipes_local.model_folders import model_tensors
from llama_recipes_local.parallel.shard_loading import Stored


def load_hollow(cls: Any, folder: Path, dtype: torch.dtype, **options: Any) -> Any:
    """Return a Llama of class ``cls`` with hollow parameters, on the CPU.

    Args:
        cls: the transformers class.
        folder: the model's folder.
        dtype: that the weights are to have.
        **options: settings of the model's configuration.

    Raises:
        TrainingError: if the folder's files lack a parameter.
    """
    model = _on_meta(cls, folder, dtype, **options)
    tensors = model_tensors(folder, "--model_name")
    hollow: dict[nn.Parameter, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if name not in tensors:
            raise TrainingError(f"{folder} has no {name}: leave --low_cpu_fsdp out")
        hollow[parameter] = _hollow(parameter, Stored(tensors.path(name), name))
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = hollow[parameter]
        if any(buffer is not None and buffer.is_meta for buffer in module._buffers.values()):
            # a Llama's only buffers are its rotary frequencies, which its configuration gives
            module._buffers = type(module)(module.config)._buffers
    return model


def _on_meta(cls: Any, folder: Path, dtype: torch.dtype, **options: Any) -> Any:
    """Make the model that ``from_pretrained`` would load, without reading a weight."""
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **options)
    with torch.device("meta"):
        model = cls._from_config(config, dtype=dtype)
    if (folder / GENERATION_CONFIG_NAME).is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(
            folder, local_files_only=True, use_cache=config.use_cache
        )
    return model.eval()


def _hollow(parameter: nn.Parameter, place: Stored) -> nn.Parameter:
    one_number = torch.zeros((), dtype=parameter.dtype)
    hollow: Any = nn.Parameter(one_number.expand(parameter.shape), parameter.requires_grad)
    hollow.stored = place
    return hollow
