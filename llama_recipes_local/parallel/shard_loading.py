"""Loads a rank's shards of weights that are still in their files; see ``models.deferred``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file: the file, and the name in it."""

    path: Path
    name: str

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Return rows ``start`` to ``stop``, mapped from the file; only what is used is read."""
        with safe_open(self.path, framework="pt") as file:
            return file.get_slice(self.name)[start:stop]


def move_deferred_to_meta(model: nn.Module) -> dict[str, StoredTensor]:
    """Replace the deferred parameters of ``model`` by parameters on the meta device.

    They can then be sharded, and are loaded afterwards.

    Returns:
        Where the weights are, by the parameters' names in ``model``.
    """
    deferred: dict[str, Any] = {
        name: parameter
        for name, parameter in model.named_parameters()
        if hasattr(parameter, "stored")
    }
    empty = {p: torch.empty(p.shape, dtype=p.dtype, device="meta") for p in deferred.values()}
    _replace(model, empty)
    return {name: parameter.stored for name, parameter in deferred.items()}


@torch.no_grad()
def load_shards(model: nn.Module, places: dict[str, StoredTensor], device: torch.device) -> None:
    """Load this rank's rows of each weight of a model, one weight at a time.

    Args:
        model: a model that FSDP2 has sharded, or a replica; its deferred parameters are on the meta
            device.
        places: what ``move_deferred_to_meta`` returned.
        device: the device that the weights are kept on.
    """
    if not places:
        return
    parameters: dict[str, Any] = dict(model.named_parameters())
    loaded: dict[nn.Parameter, torch.Tensor] = {}
    for name, place in places.items():
        shard: Any = torch.empty_like(parameters[name], device=device)
        own = shard.to_local() if isinstance(shard, DTensor) else shard
        start = _first_row(parameters[name])
        if own.numel():
            own.copy_(place.rows(start, start + own.shape[0]))
        loaded[parameters[name]] = shard
    _replace(model, loaded)
    print("--> Weights: each rank has loaded its shards from the files (--low_cpu_fsdp)")


def _first_row(shard: torch.Tensor) -> int:
    """Return this rank's first row; each rank has ``ceil(rows / ranks)``, the last ones fewer."""
    if not isinstance(shard, DTensor):
        return 0
    mesh = shard.device_mesh["shard"]
    return mesh.get_local_rank() * -(-shard.shape[0] // mesh.size())


def _replace(model: nn.Module, new: dict[nn.Parameter, torch.Tensor]) -> None:
    """Replace parameters in every module that has them, so that tied ones stay tied."""
    made = {old: nn.Parameter(data, old.requires_grad) for old, data in new.items()}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter in made:
                module._parameters[name] = made[parameter]
