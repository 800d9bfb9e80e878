"""What a rank has to write of a tensor: all of it, its own part of it, or nothing."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from llama_recipes_local.parallel import is_rank_zero


@dataclass(frozen=True)
class Piece:
    """A part of a tensor.

    Attributes:
        name: the tensor's name.
        tensor: the part, on the device that it is on.
        offsets: where it begins in the whole, in each dimension.
    """

    name: str
    tensor: torch.Tensor
    offsets: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the part."""
        return self.tensor.numel() * self.tensor.element_size()


def piece_of(name: str, tensor: torch.Tensor) -> Piece | None:
    """Return what this rank writes of a tensor, so that all ranks together write it once."""
    if not isinstance(tensor, DTensor):
        return Piece(name, tensor.detach(), (0,) * tensor.dim()) if is_rank_zero() else None
    mesh, placements = tensor.device_mesh, tensor.placements
    coordinates = mesh.get_coordinate() or ()
    for place, coordinate in zip(placements, coordinates, strict=True):
        if isinstance(place, Replicate) and coordinate:
            return None
    local = tensor.to_local().detach()
    _, offsets = compute_local_shape_and_global_offset(tensor.shape, mesh, placements)
    return Piece(name, local, tuple(offsets)) if local.numel() else None


def in_files(pieces: Iterable[Piece], limit: int) -> list[list[Piece]]:
    """Spread pieces over files of about ``limit`` bytes, which threads write side by side."""
    files: list[list[Piece]] = []
    filled = limit
    for piece in pieces:
        if filled + piece.size > limit or not files:
            files.append([])
            filled = 0
        files[-1].append(piece)
        filled += piece.size
    return files


def copied_to_host(pieces: list[Piece], buffer: torch.Tensor) -> list[Piece]:
    """Copy pieces into a buffer in host memory, one after another.

    The copies of what is on a device are not waited for.

    Args:
        pieces: of one file.
        buffer: (bytes,) uint8, pinned where there is a device.
    """
    copies, start = [], 0
    for piece in by_alignment(pieces):
        flat = buffer[start : start + piece.size]
        copy = flat.view(piece.tensor.dtype).view(piece.tensor.shape)
        copy.copy_(piece.tensor, non_blocking=True)
        copies.append(replace(piece, tensor=copy))
        start += piece.size
    return copies


def by_alignment(pieces: Iterable[Piece]) -> list[Piece]:
    """Put pieces of wide dtypes first, so that each begins at a multiple of its element's size."""
    return sorted(pieces, key=lambda piece: -piece.tensor.element_size())
