"""Fills tensors from saved shards, on any number of ranks.

Each rank reads what it needs by itself. torch's reader of the same files needs all ranks to plan
together, and prints a traceback for anything wrong with a file.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from llama_recipes_local.checkpoints.layout import CorruptCheckpointError

_TRAINED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

Box = tuple[slice, ...]
"""A part of a tensor: where it begins and ends in each dimension."""


@dataclass(frozen=True)
class _Stored:
    """A shard in an open file, and its place in the whole tensor."""

    file: Any
    box: Box


def read_tensors(
    folder: Path, targets: Mapping[str, torch.Tensor], listed: Collection[Path] | None = None
) -> None:
    """Fill tensors, sharded or not, from a folder of a checkpoint.

    Args:
        folder: where the files are.
        targets: all tensors of the folder, by the names that they were written under.
        listed: the files of the manifest, the only ones that are read; None reads every file.

    Raises:
        CorruptCheckpointError: if a tensor is missing, not wanted, of another shape or kind of
            numbers or not finite, or a file is corrupt.
    """
    try:
        stored = _index(folder, listed)
        for name, target in targets.items():
            _fill(name, target.detach(), stored.get(name, []))
        unknown = next((name for name in stored if name not in targets), None)
        if unknown is not None:
            raise ValueError(f"{unknown} is in the checkpoint, and not in this model")
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CorruptCheckpointError(
            f"{folder} does not contain the state of this model: {error}"
        ) from error


def _index(folder: Path, listed: Collection[Path] | None) -> dict[str, list[_Stored]]:
    """Return the shards of every tensor in a folder's files."""
    stored: dict[str, list[_Stored]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        if listed is not None and path not in listed:
            continue
        file: Any = safe_open(path, framework="pt")
        offsets_by_name = json.loads(file.metadata()["DCP_SHARDING_INFO"])
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            offsets, sizes = (
                offsets_by_name[name]["saved_offsets"],
                file.get_slice(name).get_shape(),
            )
            box = tuple(slice(o, o + size) for o, size in zip(offsets, sizes, strict=True))
            stored.setdefault(name, []).append(_Stored(file, box))
    return stored


def _fill(name: str, target: torch.Tensor, stored: list[_Stored]) -> None:
    shape = tuple(target.shape)
    ends = (tuple(part.stop for part in shard.box) for shard in stored)
    saved = tuple(map(max, zip(*ends, strict=True)))
    if saved != shape:
        raise ValueError(
            f"{name} has shape {shape} in this model, and is {saved or 'missing'} there"
        )
    local, box = _own_part(target)
    filled = 0
    for shard in stored:
        common = _overlap(box, shard.box)
        if common is not None:
            part = shard.file.get_slice(name)[_within(common, shard.box)]
            _check_values(name, part, target.dtype)
            local[_within(common, box)].copy_(part)
            filled += part.numel()
    if filled != local.numel():
        raise ValueError(f"{name} is incomplete")


def _check_values(name: str, part: torch.Tensor, dtype: torch.dtype) -> None:
    """Refuse values that no run saves: its loss was finite, or it stopped before a weight changed.

    Masks, which a model may keep, are minus infinity.
    """
    if part.dtype.is_floating_point != dtype.is_floating_point:
        raise ValueError(f"{name} is {dtype} in this model, and {part.dtype} there")
    if part.dtype in _TRAINED and part.numel() and not part.max() < math.inf:  # NaN is not less
        raise ValueError(f"{name} has values that are not finite")


def _own_part(target: torch.Tensor) -> tuple[torch.Tensor, Box]:
    """Return this rank's part of a tensor, and its place in the whole."""
    if not isinstance(target, DTensor):
        return target, tuple(slice(0, size) for size in target.shape)
    sizes, offsets = compute_local_shape_and_global_offset(
        target.shape, target.device_mesh, target.placements
    )
    box = tuple(slice(o, o + size) for o, size in zip(offsets, sizes, strict=True))
    return target.to_local(), box


def _overlap(one: Box, other: Box) -> Box | None:
    common = tuple(
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    return common if all(part.start < part.stop for part in common) else None


def _within(part: Box, box: Box) -> Box:
    """Return a part of the whole relative to the box that contains it."""
    return tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(part, box, strict=True))
