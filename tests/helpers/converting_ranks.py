"""Runs under torchrun: saves sharded models and optimisers, as this package and as upstream do.

``FOLDER MODEL TIED_MODEL``: below ``FOLDER``, ``ours``, ``ours-tied``, ``theirs`` and
``theirs-tied``; and ``expected.safetensors`` and ``expected-tied.safetensors``.
"""

import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP  # noqa: N817
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from llama_recipes_local import configs, parallel
from llama_recipes_local import model_checkpointing as checkpoints
from llama_recipes_local._upstream import load
from llama_recipes_local.parallel import FullyShardedDataParallel


def changed_model(model: Path) -> LlamaForCausalLM:
    """Return a model whose weights are not those of its folder."""
    loaded = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        for weight in loaded.parameters():
            weight.add_(1)
    return loaded


def stepped(model: Any) -> torch.optim.Optimizer:
    """Return an optimiser that has a state, after a step with a learning rate of 0."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    ids = torch.arange(3, 40).unsqueeze(0)
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    return optimizer


def save(folder: Path, model: Path, suffix: str) -> None:
    rank = parallel.rank()
    if rank == 0:
        state = changed_model(model).state_dict()
        expected = {name: tensor.clone() for name, tensor in state.items()}
        save_file(expected, folder / f"expected{suffix}.safetensors")

    ours = changed_model(model)
    FullyShardedDataParallel(ours, [LlamaDecoderLayer])
    root = str(folder / f"ours{suffix}")
    train = configs.train_config(model_name=str(model), dist_checkpoint_root_folder=root)
    checkpoints.save_model_and_optimizer_sharded(ours, rank, train, stepped(ours))
    checkpoints.save_train_params(train, configs.fsdp_config(), rank)

    policy = ModuleWrapPolicy({LlamaDecoderLayer})
    theirs = FSDP(changed_model(model), auto_wrap_policy=policy, device_id=torch.device("cpu"))
    cfg = SimpleNamespace(
        dist_checkpoint_root_folder=f"theirs{suffix}", dist_checkpoint_folder="run", model_name="m"
    )
    handler = load("model_checkpointing.checkpoint_handler")
    handler.save_model_and_optimizer_sharded(theirs, rank, cfg, stepped(theirs))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    folder, model, tied = map(Path, sys.argv[1:])
    os.chdir(folder)
    parallel.setup()
    save(folder, model, "")
    save(folder, tied, "-tied")
    parallel.cleanup()
