"""Decides what a rank writes of a tensor: all of it, its shard, or nothing."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from llama_recipes_local.parallel import is_rank_zero


@dataclass(frozen=True)
class TensorShard:
    """A shard of a tensor, or the whole of one that is not sharded.

    Attributes:
        name: the tensor's name.
        tensor: the shard, on its device.
        offsets: where it begins in the whole tensor, in each dimension.
    """

    name: str
    tensor: torch.Tensor
    offsets: tuple[int, ...]

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.tensor.numel() * self.tensor.element_size()


def shard_of(name: str, tensor: torch.Tensor) -> TensorShard | None:
    """Return what this rank writes of a tensor: together, the ranks write each element once."""
    if not isinstance(tensor, DTensor):
        return TensorShard(name, tensor.detach(), (0,) * tensor.dim()) if is_rank_zero() else None
    mesh, placements = tensor.device_mesh, tensor.placements
    coordinates = mesh.get_coordinate() or ()
    for place, coordinate in zip(placements, coordinates, strict=True):
        if isinstance(place, Replicate) and coordinate:
            return None  # another rank writes this replica
    local = tensor.to_local().detach()
    _, offsets = compute_local_shape_and_global_offset(tensor.shape, mesh, placements)
    return TensorShard(name, local, tuple(offsets)) if local.numel() else None


def group_into_files(shards: Iterable[TensorShard], limit: int) -> list[list[TensorShard]]:
    """Spread shards over files of about ``limit`` bytes, which threads write in parallel."""
    files: list[list[TensorShard]] = []
    filled = limit
    for shard in shards:
        if filled + shard.size > limit or not files:
            files.append([])
            filled = 0
        files[-1].append(shard)
        filled += shard.size
    return files


def copy_to_host(shards: list[TensorShard], buffer: torch.Tensor) -> list[TensorShard]:
    """Copy shards into a buffer in host memory, one after another.

    Copies from a device are asynchronous.

    Args:
        shards: of one file.
        buffer: (bytes,) uint8, pinned if there is a device.
    """
    copies, start = [], 0
    for shard in sorted_by_alignment(shards):
        flat = buffer[start : start + shard.size]
        copy = flat.view(shard.tensor.dtype).view(shard.tensor.shape)
        copy.copy_(shard.tensor, non_blocking=True)
        copies.append(replace(shard, tensor=copy))
        start += shard.size
    return copies


def sorted_by_alignment(shards: Iterable[TensorShard]) -> list[TensorShard]:
    """Sort wide dtypes first, so that each shard begins at a multiple of its element's size."""
    return sorted(shards, key=lambda shard: -shard.tensor.element_size())
