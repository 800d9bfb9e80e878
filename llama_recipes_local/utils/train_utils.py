"""Upstream's ``utils.train_utils``: the loop and the process group are this fork's."""

import os

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from llama_recipes_local import configs, parallel
from llama_recipes_local._upstream import fall_back
from llama_recipes_local.model_checkpointing import save_train_params
from llama_recipes_local.models import freeze_transformer_layers
from llama_recipes_local.models.quantization import describe
from llama_recipes_local.parallel import cleanup, device_type, get_policies
from llama_recipes_local.run import active_run
from llama_recipes_local.training.evaluation import evaluation
from llama_recipes_local.training.loop import train

__all__ = [
    "cleanup",
    "clear_gpu_cache",
    "evaluation",
    "freeze_transformer_layers",
    "get_policies",
    "print_model_size",
    "save_train_params",
    "setup",
    "setup_environ_flags",
    "train",
]


def setup() -> None:
    """Initialise the process group, with the active run's ``process_group_timeout``."""
    run = active_run()
    if run is None:
        parallel.setup()
    else:
        parallel.setup(run.train.process_group_timeout)


def setup_environ_flags(rank: int) -> None:
    """Ask torch for C++ stack traces in its errors."""
    os.environ["TORCH_SHOW_CPP_STACKTRACES"] = "1"


def clear_gpu_cache(rank: int | None = None) -> None:
    """Release torch's unused cached memory on the device, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def print_model_size(model: nn.Module, config: configs.train_config, rank: int = 0) -> None:
    """Print the model's folder, size, dtype and attention kernel, on rank 0."""
    if rank != 0:
        return
    dtypes = ", ".join(sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()}))
    kernel = getattr(getattr(model, "config", None), "_attn_implementation", "its own")
    print(f"--> Model {config.model_name}: {_parameters(model) / 1e6:,.1f} M parameters, {dtypes}")
    print(f"--> Device {device_type()}, attention kernel {kernel!r}")
    quantization = getattr(getattr(model, "config", None), "quantization_config", None)
    if isinstance(quantization, BitsAndBytesConfig):
        print(describe(quantization))


def _parameters(model: nn.Module) -> int:
    """Return how many weights a model has; those packed into 4 bits count separately."""
    if isinstance(model, PreTrainedModel):
        return model.num_parameters()
    return sum(parameter.numel() for parameter in model.parameters())


__getattr__ = fall_back("utils.train_utils")
