"""llama.cpp's K-quants of 4, 5 and 6 bits, which the package ``gguf`` reads but cannot write.

A row is divided into blocks of 256 weights, and a block into groups. Q4_K and Q5_K represent a
weight as ``scale * level - low``, Q6_K as ``scale * level``. A block's scales (and lows) are
integers times a factor of the block. The best scale of a group is searched: several ranges of
levels are tried, and for each the scale with the least squared error follows in closed form. The
formats are those of llama.cpp's ``ggml-common.h`` and the searches those of ``ggml-quants.c``,
including the order of float32 operations, so that the bytes are the same.

The searches treat a group as a column: sums run over rows, in order, for many groups at once.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

BLOCK = 256
_GROUP = 32
_SMALL_GROUP = 16
_SIX_BITS = 63
_TINY = 1e-15
_BLOCKS_AT_ONCE = 512
"""Blocks that a thread quantises at once: what a search holds of them stays in the cache."""


class _Steps(NamedTuple):
    """The levels to try: ``top + first + n / 10`` for the largest weight, with n from 0 to last."""

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
    return _in_threads(weight, _q4_k)


def quantize_q5_k(weight: torch.Tensor) -> np.ndarray:
    """Return a weight in Q5_K: see ``quantize_q4_k``; 176 bytes for 256 weights."""
    return _in_threads(weight, _q5_k)


def quantize_q6_k(weight: torch.Tensor) -> np.ndarray:
    """Return a weight in Q6_K: see ``quantize_q4_k``; 210 bytes for 256 weights."""
    return _in_threads(weight, _q6_k)


def _in_threads(
    weight: torch.Tensor, quantize: Callable[[torch.Tensor], torch.Tensor]
) -> np.ndarray:
    """Quantise a few blocks in each thread: torch's own threads would split small operations."""
    parts = weight.reshape(-1, BLOCK).split(_BLOCKS_AT_ONCE)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            blocks = torch.cat(list(pool.map(quantize, parts)))
    finally:
        torch.set_num_threads(threads)
    return blocks.reshape(weight.shape[0], -1).numpy()


def _q4_k(blocks: torch.Tensor) -> torch.Tensor:
    head, levels = _scaled_groups(blocks, _FOUR)
    return _joined(head, _nibbles(levels))


def _q5_k(blocks: torch.Tensor) -> torch.Tensor:
    head, levels = _scaled_groups(blocks, _FIVE)
    places = torch.arange(8, dtype=torch.uint8)[:, None]
    high = ((levels >> 4) << places).sum(1, dtype=torch.uint8)  # a bit for each of the 8 groups
    return _joined(head, high, _nibbles(levels & 15))


def _q6_k(blocks: torch.Tensor) -> torch.Tensor:
    groups = blocks.reshape(-1, BLOCK // _SMALL_GROUP, _SMALL_GROUP)
    scales = _symmetric_scales(_columns(groups)).reshape(-1, BLOCK // _SMALL_GROUP)
    largest = scales.gather(1, scales.abs().argmax(1, keepdim=True))
    none = largest.abs() < _TINY
    inverse = _quotient(-128, largest)
    factor = torch.where(none, 0, 1 / inverse).half()
    steps = torch.where(none, 0, (inverse * scales).round_().clamp_(-128, 127))
    unit = (factor.float() * steps)[..., None]
    levels = (groups / _not_zero(unit)).round_().clamp_(-32, 31).add_(32)
    levels = torch.where(unit == 0, 0, levels)
    parts = levels.to(torch.uint8).reshape(-1, 2, 4, 32)  # halves of a block, quarters of a half
    low, high = parts & 15, parts >> 4
    places = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[:, None]
    return _joined(
        low[:, :, :2] | (low[:, :, 2:] << 4),
        (high << places).sum(2, dtype=torch.uint8),
        steps.to(torch.int8),
        factor,
    )


def _scaled_groups(blocks: torch.Tensor, steps: _Steps) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the bytes before the levels, (blocks, 16), and the levels, (blocks, 8, 32)."""
    groups = blocks.reshape(-1, BLOCK // _GROUP, _GROUP)
    best = torch.stack(_best_scales(_columns(groups), steps))
    both = best.reshape(2, -1, BLOCK // _GROUP).transpose(0, 1)  # (blocks, 2, 8)
    largest = both.amax(2, keepdim=True)
    whole = (_quotient(_SIX_BITS, largest) * both).round_().clamp_(0, _SIX_BITS)
    stored = (largest / _SIX_BITS).half()
    unit, offset = (stored.float() * whole)[..., None].unbind(1)  # (blocks, 8, 1) each
    levels = (groups + offset).div_(_not_zero(unit)).round_().clamp_(0, steps.top)
    levels = torch.where(unit == 0, 0, levels)
    packed = _pack_scales(*whole.to(torch.uint8).unbind(1))
    return _joined(stored, packed), levels.to(torch.uint8)


def _best_scales(groups: torch.Tensor, steps: _Steps) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scale and the low of each group, both at least 0.

    Args:
        groups: (weights, groups).
        steps: the levels to try.
    """
    mean_square = _sum(groups.square()) / _GROUP
    importance = groups.abs().add_(mean_square.double().sqrt().float())  # float32's may be off
    most, low = groups.amax(0), groups.amin(0).clamp_(max=0)
    flat = most == low
    inverse = _quotient(steps.top, most - low)
    scale = 1 / inverse
    error = _error(groups, _levels(groups, inverse, low, steps.top), importance, scale, low)
    totals = _sum(importance), _sum(importance * groups)
    for step in range(steps.last + 1):
        tried = torch.tensor(0.1) * step + steps.first + steps.top
        levels = _levels(groups, _quotient(tried, most - low), low, steps.top)
        fitted = _fitted(groups, levels, importance, *totals)
        found = _error(groups, levels, importance, *fitted)
        better = found < error
        scale = torch.where(better, fitted[0], scale)
        low = torch.where(better, fitted[1], low)
        error = torch.where(better, found, error)
    return torch.where(flat, 0, scale), low.abs()


def _levels(
    groups: torch.Tensor, inverse: torch.Tensor, low: torch.Tensor, top: int
) -> torch.Tensor:
    return (groups - low).mul_(inverse).round_().clamp_(0, top)


def _fitted(
    groups: torch.Tensor,
    levels: torch.Tensor,
    importance: torch.Tensor,
    total: torch.Tensor,
    mean: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scale and the low, at most 0, with the least error; NaN if there is none."""
    weighted = importance * levels
    first, product = _sum(weighted), _sum(weighted * groups)
    second = _sum(weighted.mul_(levels))
    determinant = total * second - first.square()
    determinant = torch.where(determinant > 0, determinant, torch.nan)
    scale = (total * product - mean * first) / determinant
    low = (second * mean - first * product) / determinant
    return torch.where(low > 0, product / second, scale), low.clamp_(max=0)


def _error(
    groups: torch.Tensor,
    levels: torch.Tensor,
    importance: torch.Tensor,
    scale: torch.Tensor,
    low: torch.Tensor,
) -> torch.Tensor:
    return _sum((levels * scale).add_(low).sub_(groups).square_().mul_(importance))


def _symmetric_scales(groups: torch.Tensor) -> torch.Tensor:
    """Return the scale of each group for levels from -32 to 31; large weights count most.

    Args:
        groups: (weights, groups).
    """
    importance = groups.square()
    weighted = importance * groups
    largest = groups.gather(0, groups.abs().argmax(0, keepdim=True))[0]
    best = torch.zeros_like(largest)
    gain = best - 1  # below that of any scale
    for step in (0, *range(-9, 0), *range(1, 10)):
        inverse = _quotient(-(torch.tensor(0.1) * step + 32), largest)
        levels = (groups * inverse).round_().clamp_(-32, 31)
        product = _sum(weighted * levels)
        square = _sum((importance * levels).mul_(levels))
        better = (square > 0) & (product.square() > gain * square)
        scale = product / _not_zero(square)
        best, gain = torch.where(better, scale, best), torch.where(better, scale * product, gain)
    return torch.where(largest.abs() < _TINY, 0, best)


def _columns(groups: torch.Tensor) -> torch.Tensor:
    """Return groups of blocks, (blocks, groups, weights), as columns."""
    return groups.flatten(0, 1).t().contiguous()


def _sum(columns: torch.Tensor) -> torch.Tensor:
    """Add the rows one after another, as llama.cpp does; torch's sum uses another order."""
    return torch.from_numpy(np.add.reduce(columns.numpy(), 0))


def _quotient(number: float | torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Divide where the divisor is not 0, exactly: torch multiplies by a number's reciprocal."""
    return torch.as_tensor(number, dtype=torch.float32) / _not_zero(tensor)


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


def _joined(*parts: torch.Tensor) -> torch.Tensor:
    """Return the bytes of blocks, joined from their parts."""
    return torch.cat([part.contiguous().view(torch.uint8).flatten(1) for part in parts], 1)


def _not_zero(tensor: torch.Tensor) -> torch.Tensor:
    return torch.where(tensor == 0, 1, tensor)
