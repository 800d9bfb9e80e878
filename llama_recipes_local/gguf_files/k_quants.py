"""llama.cpp's K-quants of 4, 5 and 6 bits, which the package ``gguf`` reads but does not write.

A row is cut into blocks of 256 weights, a block into groups. Q4_K and Q5_K write a weight as
``scale * level - low``, Q6_K as ``scale * level``; a block's scales (and lows) are whole numbers
times a factor of the block. The best scale of a group is searched: a few steps of the levels are
tried, and for each the scale with the least squared error follows in closed form. The formats are
those of llama.cpp's ``ggml-common.h``, the searches are the ones of ``ggml-quants.c``.
"""

from typing import NamedTuple

import numpy as np
import torch

BLOCK = 256
_GROUP = 32
_SMALL_GROUP = 16
_SIX_BITS = 63
_TINY = 1e-30


class _Steps(NamedTuple):
    """Which levels are tried: ``top + first + n / 10`` for the largest weight, n from 0 to last."""

    top: int
    first: float
    last: int


_FOUR = _Steps(15, -1.0, 20)
_FIVE = _Steps(31, -0.5, 15)


def quantize_q4_k(weight: torch.Tensor) -> np.ndarray:
    """Return a weight in Q4_K.

    Args:
        weight: (rows, columns), columns a multiple of 256; float32.

    Returns:
        Its bytes, (rows, columns / 256 * 144).
    """
    head, levels = _scaled_groups(weight, _FOUR)
    return _joined(weight, head, _nibbles(levels))


def quantize_q5_k(weight: torch.Tensor) -> np.ndarray:
    """Return a weight in Q5_K: as ``quantize_q4_k``, with 176 bytes for 256 weights."""
    head, levels = _scaled_groups(weight, _FIVE)
    places = torch.arange(8, dtype=torch.uint8)[:, None]
    high = ((levels >> 4) << places).sum(1, dtype=torch.uint8)  # a bit for each of the 8 groups
    return _joined(weight, head, high, _nibbles(levels & 15))


def quantize_q6_k(weight: torch.Tensor) -> np.ndarray:
    """Return a weight in Q6_K: as ``quantize_q4_k``, with 210 bytes for 256 weights."""
    groups = weight.reshape(-1, BLOCK // _SMALL_GROUP, _SMALL_GROUP)
    scales = _symmetric_scales(groups)
    largest = scales.gather(1, scales.abs().argmax(1, keepdim=True))
    factor = (largest / -128).half()
    steps = torch.where(factor == 0, 0, scales / _not_zero(factor.float()))
    steps = steps.round().clamp(-128, 127)
    unit = (factor.float() * steps)[..., None]
    levels = torch.where(unit == 0, 0, groups / _not_zero(unit)).round().clamp(-32, 31) + 32
    parts = levels.to(torch.uint8).reshape(-1, 2, 4, 32)  # halves of a block, quarters of a half
    low, high = parts & 15, parts >> 4
    places = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[:, None]
    return _joined(
        weight,
        low[:, :, :2] | (low[:, :, 2:] << 4),
        (high << places).sum(2, dtype=torch.uint8),
        steps.to(torch.int8),
        factor,
    )


def _scaled_groups(weight: torch.Tensor, steps: _Steps) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what stands before the levels, (blocks, 16) bytes, and the levels.

    The levels are (blocks, 8, 32).
    """
    groups = weight.reshape(-1, BLOCK // _GROUP, _GROUP)
    scale, low = _best_scales(groups, steps)
    factors = torch.stack([scale.amax(1), low.amax(1)], 1) / _SIX_BITS  # (blocks, 2)
    whole = (torch.stack([scale, low], 1) / _not_zero(factors)[..., None]).round()
    whole = whole.clamp(0, _SIX_BITS)
    stored = factors.half()
    unit, offset = (stored.float()[..., None] * whole).unbind(1)  # (blocks, 8) each
    levels = (groups + offset[..., None]) / _not_zero(unit)[..., None]
    levels = torch.where(unit[..., None] == 0, 0, levels.round().clamp(0, steps.top))
    packed = _pack_scales(*whole.to(torch.uint8).unbind(1))
    return torch.cat([stored.view(torch.uint8), packed], 1), levels.to(torch.uint8)


def _best_scales(groups: torch.Tensor, steps: _Steps) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scale and the low of each group, both at least 0.

    Args:
        groups: (blocks, groups, weights).
        steps: which levels are tried.
    """
    importance = groups.square().mean(-1, keepdim=True).sqrt() + groups.abs()
    most, least = groups.amax(-1), groups.amin(-1).clamp(max=0)
    flat = most - least <= _TINY
    best = ((most - least) / steps.top, least)
    error = _error(groups, _levels(groups, *best, steps.top), importance, *best)
    total, mean = importance.sum(-1), (importance * groups).sum(-1)
    for step in range(steps.last + 1):
        unit = _not_zero(most - best[1]) / (steps.top + steps.first + 0.1 * step)
        levels = _levels(groups, unit, best[1], steps.top)
        weighted = importance * levels
        first, second = weighted.sum(-1), (weighted * levels).sum(-1)
        product = (weighted * groups).sum(-1)
        determinant = total * second - first.square()
        scale = (total * product - mean * first) / _not_zero(determinant)
        low = (second * mean - first * product) / _not_zero(determinant)
        through_zero = low > 0
        scale = torch.where(through_zero, product / _not_zero(second), scale)
        low = torch.where(through_zero, 0, low)
        found = _error(groups, levels, importance, scale, low)
        better = (determinant > 0) & (found < error)
        best = (torch.where(better, scale, best[0]), torch.where(better, low, best[1]))
        error = torch.where(better, found, error)
    return torch.where(flat, 0, best[0]).clamp(min=0), -best[1]


def _levels(groups: torch.Tensor, unit: torch.Tensor, low: torch.Tensor, top: int) -> torch.Tensor:
    return ((groups - low[..., None]) / _not_zero(unit)[..., None]).round().clamp(0, top)


def _error(
    groups: torch.Tensor,
    levels: torch.Tensor,
    importance: torch.Tensor,
    scale: torch.Tensor,
    low: torch.Tensor,
) -> torch.Tensor:
    difference = scale[..., None] * levels + low[..., None] - groups
    return (importance * difference.square()).sum(-1)


def _symmetric_scales(groups: torch.Tensor) -> torch.Tensor:
    """Return the scale of each group for levels from -32 to 31; large weights count most."""
    importance = groups.square()
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    best = torch.zeros(groups.shape[:-1])
    gain = torch.zeros_like(best)
    for step in (0, *range(-9, 0), *range(1, 10)):
        levels = (groups * (-(32 + 0.1 * step) / _not_zero(largest))).round().clamp(-32, 31)
        product = (importance * levels * groups).sum(-1)
        square = (importance * levels.square()).sum(-1)
        scale = product / _not_zero(square)
        better = (square > 0) & (scale * product > gain)
        best, gain = torch.where(better, scale, best), torch.where(better, scale * product, gain)
    return best


def _pack_scales(scales: torch.Tensor, lows: torch.Tensor) -> torch.Tensor:
    """Pack 8 scales and 8 lows of 6 bits, (blocks, 8) each, into (blocks, 12) bytes."""
    return torch.cat(
        [
            scales[:, :4] | ((scales[:, 4:] >> 4) << 6),
            lows[:, :4] | ((lows[:, 4:] >> 4) << 6),
            (scales[:, 4:] & 15) | ((lows[:, 4:] & 15) << 4),
        ],
        1,
    )


def _nibbles(levels: torch.Tensor) -> torch.Tensor:
    """Put two groups of levels below 16 into 32 bytes, (blocks, 8, 32) to (blocks, 4, 32)."""
    return levels[:, ::2] | (levels[:, 1::2] << 4)


def _joined(weight: torch.Tensor, *parts: torch.Tensor) -> np.ndarray:
    """Return the bytes of the blocks' parts, a row for each of the weight's."""
    blocks = weight.numel() // BLOCK
    each = [part.contiguous().view(torch.uint8).reshape(blocks, -1) for part in parts]
    return torch.cat(each, 1).reshape(weight.shape[0], -1).numpy()


def _not_zero(tensor: torch.Tensor) -> torch.Tensor:
    return torch.where(tensor == 0, 1, tensor)
