"""Models whose weights are still in their files, for ``--low_cpu_fsdp``.

A hollow parameter has its shape, dtype and device, the memory of one number, and a note of where
its weights are stored. An adapter can be put on such a model as on any other; ``parallel.filling``
gives each rank its share of the weights once the model is sharded.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from llama_recipes_local.errors import TrainingError
from llama_recipes_local.parallel.filling import Stored


def load_hollow(cls: Any, folder: Path, **options: Any) -> Any:
    """Return a Llama of class ``cls`` with hollow parameters, on the CPU.

    Args:
        cls: the transformers class.
        folder: the model's folder.
        **options: further arguments of ``from_pretrained``.

    Raises:
        TrainingError: if the folder's files lack a parameter.
    """
    from llama_recipes_local.model_folders import model_tensors

    model = cls.from_pretrained(folder, **options, device_map="meta")
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


def _hollow(parameter: nn.Parameter, place: Stored) -> nn.Parameter:
    one_number = torch.zeros((), dtype=parameter.dtype)
    hollow: Any = nn.Parameter(one_number.expand(parameter.shape), parameter.requires_grad)
    hollow.stored = place
    return hollow
