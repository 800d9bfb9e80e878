"""Models without weights: on the meta device, or with weights that are still in their files.

The second kind is for ``--low_cpu_fsdp``. A deferred parameter has its shape, dtype and device, the
memory of one number, and the place where its weights are stored. An adapter can be put on such a
model as on any other; ``parallel.shard_loading`` loads each rank's shard of the weights once the
model is sharded.
"""

import copy
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import nn
from transformers.utils import GENERATION_CONFIG_NAME

from llama_recipes_local.errors import TrainingError, refusal
from llama_recipes_local.model_folders.tensors import model_tensors
from llama_recipes_local.models.top_layers import LlamaWithTopLayersForCausalLM, TopLayersConfig
from llama_recipes_local.parallel.shard_loading import StoredTensor


def empty_model(
    config: transformers.PreTrainedConfig, vocabulary: int | None = None, tied: bool = False
) -> Any:
    """Build a causal language model on the meta device.

    Args:
        config: the model's configuration, with top layers or without.
        vocabulary: rows of the embedding and the head; None means the configuration's.
        tied: whether the head is the embedding, whatever the configuration says.

    Raises:
        UsageError: if it is not a text model's configuration.
    """
    if not hasattr(config, "vocab_size"):
        raise refusal(
            f"the model is of type {config.model_type}",
            "models that see pictures are neither merged nor converted",
            "name a Llama for text",
        )
    config = copy.deepcopy(config)
    config.vocab_size = vocabulary or config.vocab_size
    config.tie_word_embeddings = tied
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        if getattr(config, "top_layers", 0):
            return LlamaWithTopLayersForCausalLM(cast(TopLayersConfig, config))
        return transformers.AutoModelForCausalLM.from_config(config)


def weight_name(model: torch.nn.Module, module: torch.nn.Module) -> str:
    """Return the name of a layer's weight."""
    (name,) = (name for name, each in model.named_modules() if each is module)
    return f"{name}.weight"


def load_deferred(cls: Any, folder: Path, dtype: torch.dtype, **options: object) -> Any:
    """Return a Llama of class ``cls`` with deferred parameters, on the CPU.

    Args:
        cls: the transformers class.
        folder: the model's folder.
        dtype: dtype of the weights.
        **options: settings of the model's configuration.

    Raises:
        TrainingError: if a parameter is missing from the folder's files.
    """
    model = _on_meta(cls, folder, dtype, **options)
    tensors = model_tensors(folder, "--model_name")
    deferred: dict[nn.Parameter, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if name not in tensors:
            raise TrainingError(f"{folder} has no {name}: copy the model again")
        deferred[parameter] = _deferred(parameter, StoredTensor(tensors.path(name), name))
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = deferred[parameter]
        if any(buffer is not None and buffer.is_meta for buffer in module._buffers.values()):
            # a Llama's only buffers are its rotary frequencies, which its configuration gives
            module._buffers = type(module)(module.config)._buffers
    return model


def _on_meta(cls: Any, folder: Path, dtype: torch.dtype, **options: object) -> Any:
    """Build the model as ``from_pretrained`` does, without reading a weight."""
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **options)
    with torch.device("meta"):
        model = cls._from_config(config, dtype=dtype)
    if (folder / GENERATION_CONFIG_NAME).is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(
            folder, local_files_only=True, use_cache=config.use_cache
        )
    return model.eval()


def _deferred(parameter: nn.Parameter, place: StoredTensor) -> nn.Parameter:
    one_number = torch.zeros((), dtype=parameter.dtype)
    deferred: Any = nn.Parameter(one_number.expand(parameter.shape), parameter.requires_grad)
    deferred.stored = place
    return deferred
