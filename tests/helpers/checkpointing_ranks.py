"""Runs under torchrun: saves a trained, sharded model in every way, or loads it.

``save FOLDER MODEL TIED_MODEL`` on some ranks, ``load FOLDER MODEL TIED_MODEL`` on others.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from llama_recipes_local import configs, parallel
from llama_recipes_local import model_checkpointing as checkpoints
from llama_recipes_local.optimization.optimizers import make_optimizer
from llama_recipes_local.parallel import FullyShardedDataParallel
from llama_recipes_local.storage.publishing import published_folder


def config(folder: Path, kind: str, model: Path) -> Any:
    return configs.train_config(
        model_name=str(model), dist_checkpoint_root_folder=str(folder / kind), enable_fsdp=True
    )


def sharded(model: Path) -> LlamaForCausalLM:
    loaded = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)
    FullyShardedDataParallel(loaded, [LlamaDecoderLayer])
    return loaded


def trained(model: Path, name: str = "adamw") -> tuple[LlamaForCausalLM, torch.optim.Optimizer]:
    """Return a sharded model after a step, so that it differs from the one in the folder."""
    torch.manual_seed(0)
    loaded = sharded(model)
    optimizer = make_optimizer(name, list(loaded.parameters()), lr=1e-2, weight_decay=0.0)
    ids = torch.arange(3, 40).unsqueeze(0)
    loaded(ids, labels=ids).loss.backward()
    optimizer.step()
    return loaded, optimizer


def write_full(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write full tensors, gathered without the functions under test."""
    full = {name: parallel.full_tensor(tensor.detach()) for name, tensor in tensors.items()}
    if parallel.is_rank_zero():
        save_file(full, path)


def save(folder: Path, model: Path, tied_model: Path) -> None:
    rank = parallel.rank()
    loaded, optimizer = trained(model)
    write_full(dict(loaded.named_parameters()), folder / "expected.safetensors")
    names = {parameter: name for name, parameter in loaded.named_parameters()}
    moments = {
        f"state.{names[parameter]}.{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }
    write_full(moments, folder / "expected-optimizer.safetensors")

    cfg = config(folder, "sharded", model)
    checkpoints.save_model_and_optimizer_sharded(loaded, rank, cfg, optimizer)
    checkpoints.save_train_params(cfg, configs.fsdp_config(), rank)
    checkpoints.save_model_and_optimizer_sharded(loaded, rank, config(folder, "bare", model))
    cfg = config(folder, "full", model)
    checkpoints.save_fsdp_model_checkpoint_full(loaded, optimizer, rank, cfg, epoch=3)
    checkpoints.save_optimizer_checkpoint(loaded, optimizer, rank, cfg, epoch=3)

    tied, optimizer = trained(tied_model, "anyprecision")
    write_full(dict(tied.named_parameters()), folder / "expected-tied.safetensors")
    cfg = config(folder, "tied", tied_model)
    checkpoints.save_model_and_optimizer_sharded(tied, rank, cfg, optimizer)
    cfg = config(folder, "tied-full", tied_model)
    checkpoints.save_fsdp_model_checkpoint_full(tied, optimizer, rank, cfg, epoch=0)
    checkpoints.save_optimizer_checkpoint(tied, optimizer, rank, cfg, epoch=0)

    checkpoints.save_peft_checkpoint(resized_adapter(model), folder / "resized")
    with published_folder(
        folder / "published", main_process=rank == 0, barrier=parallel.barrier
    ) as draft:
        (draft / f"rank-{rank}").write_text(str(rank))


def resized_adapter(model: Path) -> PeftModel:
    """Return a sharded model with an adapter and rows for three more tokens, all of them 5."""
    loaded = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)
    loaded.resize_token_embeddings(1003, mean_resizing=False)
    with torch.no_grad():
        loaded.get_input_embeddings().weight[1000:] = 5
        loaded.get_output_embeddings().weight[1000:] = 5
    adapted = get_peft_model(loaded, LoraConfig(task_type="CAUSAL_LM"))
    FullyShardedDataParallel(adapted, [LlamaDecoderLayer])
    return adapted


def load(folder: Path, model: Path, tied_model: Path) -> None:
    for kind, base in (("sharded", model), ("tied", tied_model)):
        loaded = sharded(base)
        checkpoints.load_model_sharded(loaded, parallel.rank(), config(folder, kind, base))
        write_full(dict(loaded.named_parameters()), folder / f"loaded-{kind}.safetensors")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parallel.setup()
    {"save": save, "load": load}[sys.argv[1]](*map(Path, sys.argv[2:]))
    parallel.cleanup()
