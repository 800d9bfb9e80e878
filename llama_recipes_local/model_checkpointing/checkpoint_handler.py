"""Upstream's checkpoint functions, for FSDP2, in safetensors and JSON."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.fsdp import StateDictType
from torch.distributed.tensor import DTensor

from llama_recipes_local import configs
from llama_recipes_local.model_checkpointing.saved_adapter import (
    Tensors,
    adapter_state,
    write_adapter,
)
from llama_recipes_local.model_checkpointing.whole_model import write_whole_model
from llama_recipes_local.parallel import barrier, is_rank_zero
from llama_recipes_local.storage.publishing import published_files, published_folder

_GATHERED = StateDictOptions(full_state_dict=True, cpu_offload=True)
_GATHERED_FLAT = StateDictOptions(
    full_state_dict=True, cpu_offload=True, flatten_optimizer_state_dict=True
)
_SHARDED_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def checkpoint_folder(cfg: configs.train_config) -> Path:
    """Return the folder of a run's FSDP checkpoints.

    It is ``dist_checkpoint_root_folder/dist_checkpoint_folder-NAME`` with the last part of the
    model's path as the name: a whole path in a folder's name would lead elsewhere.
    """
    name = f"{cfg.dist_checkpoint_folder}-{model_label(cfg)}"
    return Path.cwd() / cfg.dist_checkpoint_root_folder / name


def _published_by_ranks(target: Path) -> AbstractContextManager[Path]:
    """Return a ``published_folder`` that all ranks enter, write in and leave together."""
    return published_folder(target, main_process=is_rank_zero(), barrier=barrier)


def model_label(cfg: configs.train_config) -> str:
    """Return the last part of the model's path."""
    return Path(cfg.model_name).resolve().name


def save_trained(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rank: int,
    train_config: configs.train_config,
    fsdp_config: configs.fsdp_config | None,
    epoch: int,
) -> None:
    """Save the adapter, or the model in full or in shards, as upstream's loop does.

    All ranks call this together.
    """
    if train_config.use_peft:
        save_peft_checkpoint(model, train_config.output_dir)
    elif fsdp_config is None:
        save_model_checkpoint(model, train_config.output_dir, train_config)
    elif fsdp_config.checkpoint_type == StateDictType.FULL_STATE_DICT:
        save_fsdp_model_checkpoint_full(model, optimizer, rank, train_config, epoch)
        if train_config.save_optimizer:
            save_optimizer_checkpoint(model, optimizer, rank, train_config, epoch)
    else:
        saved_optimizer = optimizer if train_config.save_optimizer else None
        save_model_and_optimizer_sharded(model, rank, train_config, saved_optimizer)


def save_peft_checkpoint(model: nn.Module, model_path: str | Path) -> None:
    """Save the adapter in PEFT's format; all ranks call this together."""
    state = adapter_state(model)
    if is_rank_zero():
        with published_files(Path(model_path)) as draft:
            write_adapter(model, state, draft)
    barrier()


def save_model_checkpoint(
    model: nn.Module, output_dir: str | Path, cfg: configs.train_config | None = None
) -> None:
    """Save a model that is not sharded as a Hugging Face folder, see ``write_whole_model``.

    Its weights are one file whatever their size: several could not be renamed at one moment, and a
    kill would leave some of this model and some of the one before.
    """
    with published_files(Path(output_dir)) as draft:
        write_whole_model(_as_any(model), draft, cfg, max_shard_size=sys.maxsize)


def save_fsdp_model_checkpoint_full(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rank: int,
    cfg: configs.train_config,
    epoch: int = 1,
) -> None:
    """Gather a sharded model on rank 0 and save it as a Hugging Face folder of its epoch."""
    state = get_model_state_dict(model, options=_GATHERED)
    with _published_by_ranks(checkpoint_folder(cfg) / f"{model_label(cfg)}-{epoch}") as draft:
        if rank == 0:
            write_whole_model(_as_any(model), draft, cfg, state_dict=state)


def save_optimizer_checkpoint(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rank: int,
    cfg: configs.train_config,
    epoch: int = 1,
) -> None:
    """Gather a sharded optimiser's state on rank 0 and save it as one safetensors file."""
    with _no_dtypes(optimizer):
        state = get_optimizer_state_dict(model, optimizer, options=_GATHERED_FLAT)
    if rank == 0:
        folder = checkpoint_folder(cfg)
        with published_files(folder) as draft:
            name = f"optimizer-{model_label(cfg)}-{epoch}.safetensors"
            save_file(_only_tensors(state), draft / name)
    barrier()


def load_optimizer_checkpoint(
    model: nn.Module, optimizer_checkpoint_path: Path, rank: int
) -> Tensors | None:
    """Return the state that ``save_optimizer_checkpoint`` saved, or None if there is no file."""
    if not optimizer_checkpoint_path.is_file():
        print(f"no optimizer checkpoint at {optimizer_checkpoint_path.resolve()}")
        return None
    return load_file(optimizer_checkpoint_path)


def save_model_and_optimizer_sharded(
    model: nn.Module,
    rank: int,
    cfg: configs.train_config,
    optim: torch.optim.Optimizer | None = None,
) -> None:
    """Save every rank's shards, and the optimiser's if it is given; all ranks call this together.

    The format is torch's distributed checkpoint over safetensors: it loads on any number of ranks.
    """
    state: dict[str, Any] = _untied_state(model)
    if optim is not None:
        with _no_dtypes(optim):
            flat = get_optimizer_state_dict(model, optim, options=_SHARDED_FLAT)
        state |= {f"optim.{name}": tensor for name, tensor in _only_tensors(flat).items()}
    with _published_by_ranks(checkpoint_folder(cfg)) as draft:
        writer = HuggingFaceStorageWriter(str(draft), save_distributed=True)
        save(state, storage_writer=writer)
    if rank == 0:
        print(f"--> sharded checkpoint saved in {checkpoint_folder(cfg)}")


def load_model_sharded(model: nn.Module, rank: int, cfg: configs.train_config) -> None:
    """Load the sharded checkpoint of a run into a model, sharded or not, if there is one."""
    folder = checkpoint_folder(cfg)
    if not folder.is_dir():
        if rank == 0:
            print(f"no sharded checkpoint in {folder}")
        return
    _load_sharded(model, folder)


def load_sharded_model_single_gpu(model: nn.Module, model_path: str | Path) -> nn.Module:
    """Load a sharded checkpoint's folder into a model that is not sharded, and return the model."""
    _load_sharded(model, Path(model_path))
    return model


class ModelFile(Protocol):
    """Where a caller's own configuration says that a model is; upstream's has no such fields."""

    checkpoint_folder: str
    checkpoint_model_filename: str


def load_model_checkpoint(model: nn.Module, rank: int, cfg: ModelFile) -> None:
    """Load ``cfg.checkpoint_folder / cfg.checkpoint_model_filename``, safetensors, on rank 0.

    Call this before the model is sharded.
    """
    if rank != 0:
        return
    path = Path.cwd() / cfg.checkpoint_folder / cfg.checkpoint_model_filename
    if not path.is_file():
        print(f"no model checkpoint at {path}")
        return
    model.load_state_dict(load_file(path))


def save_train_params(
    train_config: configs.train_config, fsdp_config: configs.fsdp_config, rank: int
) -> None:
    """Write the configurations as ``train_params.yaml`` into the run's checkpoint folder.

    Upstream's converter finds the model's path in it.
    """
    if rank != 0:
        return
    params = {
        name: str(getattr(config, name))
        for config in (train_config, fsdp_config)
        for name in vars(config)
    }
    folder = checkpoint_folder(train_config)
    with published_files(folder) as draft:
        (draft / "train_params.yaml").write_text(yaml.safe_dump(params, indent=4), "utf-8")


def _load_sharded(model: nn.Module, folder: Path) -> None:
    state = _untied_state(model)
    load(state, storage_reader=HuggingFaceStorageReader(str(folder)))
    state |= {name: state[first] for name, first in _tied_names(model).items()}
    set_model_state_dict(model, state)


def _untied_state(model: nn.Module) -> dict[str, Any]:
    """Return the model's state with each parameter once, as safetensors requires."""
    tied = _tied_names(model)
    state = get_model_state_dict(model)
    return {name: tensor for name, tensor in state.items() if name not in tied}


def _tied_names(model: nn.Module) -> dict[str, str]:
    """Return the first name of each parameter that has several, by its other names."""
    first_names: dict[nn.Parameter, str] = {}
    tied = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first = first_names.setdefault(parameter, name)
        if first != name:
            tied[name] = first
    return tied


@contextmanager
def _no_dtypes(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Omit dtypes, which AnyPrecisionAdamW has among its settings, from an optimiser's state."""

    def leave_out(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        for group in state["param_groups"]:
            for name in [key for key in group if isinstance(group[key], torch.dtype)]:
                del group[name]

    hook = optimizer.register_state_dict_post_hook(leave_out)
    try:
        yield
    finally:
        hook.remove()


def _only_tensors(state: dict[str, Any]) -> Tensors:
    """Make an optimiser's state of tensors that share no memory, as safetensors requires.

    Numbers become tensors; bitsandbytes' tables of 8-bit values are one for all parameters.
    """
    tensors: Tensors = {}
    seen: set[int] = set()
    for name, value in state.items():
        if value is None:
            continue
        tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value)
        shared = not isinstance(tensor, DTensor) and tensor.data_ptr() in seen
        if not isinstance(tensor, DTensor):
            seen.add(tensor.data_ptr())
        tensors[name] = tensor.clone() if shared else tensor
    return tensors


def _as_any(model: nn.Module) -> Any:
    """Return a transformers model typed so that its own methods can be called."""
    return model
