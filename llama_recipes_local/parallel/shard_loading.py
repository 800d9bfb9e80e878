"""Gives a rank its share of weights that are still in their files; see ``models.deferred``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class Stored:
    """Where a tensor is stored: its safetensors file, and its name there."""

    path: Path
    name: str

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Return some rows, mapped from the file: only what is used of them is read."""
        with safe_open(self.path, framework="pt") as file:
            return file.get_slice(self.name)[start:stop]


def empty_hollow(model: nn.Module) -> dict[str, Stored]:
    """Put the hollow parameters of ``model`` on the meta device, where they can be sharded.

    Returns:
        Where the weights are, by the parameters' names in ``model``.
    """
    hollow: dict[str, Any] = {
        name: parameter
        for name, parameter in model.named_parameters()
        if hasattr(parameter, "stored")
    }
    empty = {p: torch.empty(p.shape, dtype=p.dtype, device="meta") for p in hollow.values()}
    _replace(model, empty)
    return {name: parameter.stored for name, parameter in hollow.items()}


@torch.no_grad()
def fill(model: nn.Module, places: dict[str, Stored], device: torch.device) -> None:
    """Read this rank's rows of each weight of a sharded model, one weight at a time.

    Args:
        model: a model that FSDP2 has sharded, with the weights of ``places`` on the meta device.
        places: what ``empty_hollow`` returned.
        device: where shards rest.
    """
    parameters: dict[str, Any] = dict(model.named_parameters())
    filled: dict[nn.Parameter, torch.Tensor] = {}
    for name, place in places.items():
        shard: Any = torch.empty_like(parameters[name], device=device)
        own = shard.to_local()
        start = _first_row(parameters[name])
        if own.numel():
            own.copy_(place.rows(start, start + own.shape[0]))
        filled[parameters[name]] = shard
    _replace(model, filled)


def _first_row(shard: DTensor) -> int:
    """Return where this rank's rows begin: all ranks have as many, as far as there are some."""
    mesh = shard.device_mesh["shard"]
    return mesh.get_local_rank() * -(-shard.shape[0] // mesh.size())


def _replace(model: nn.Module, new: dict[nn.Parameter, torch.Tensor]) -> None:
    """Put other parameters in the place of some, each in every module that has it."""
    made = {old: nn.Parameter(data, old.requires_grad) for old, data in new.items()}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter in made:
                module._parameters[name] = made[parameter]
