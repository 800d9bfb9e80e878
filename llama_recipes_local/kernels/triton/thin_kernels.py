"""Triton kernels for products with LoRA's thin matrices, with dropout made on the way.

Each reads or writes its wide tensor, (tokens, features) and contiguous, once, which is what bounds
it. Thin matrices are padded to ``RANK`` as they are read; ``a`` is (rank, features), contiguous,
and rows of the other may have a stride. Masks are those of ``lora.dropout``.
"""

import triton
import triton.language as tl

from llama_recipes_local.kernels.lora.dropout import LANES, ROUNDS
from llama_recipes_local.kernels.triton.fast_launch import fast

_LANES = tl.constexpr(LANES)
_ROUNDS = tl.constexpr(ROUNDS)


@triton.jit
def _keeps(seed, rows, first, threshold, BLOCK: tl.constexpr):
    """Return which of ``BLOCK`` columns from ``first`` on are kept, (rows, BLOCK)."""
    groups = first // _LANES + tl.arange(0, BLOCK // _LANES)
    a, b, c, d = tl.philox(seed, rows[:, None], groups[None, :], 0, 0, _ROUNDS)
    words = tl.join(tl.join(a, b), tl.join(c, d))
    bits = tl.join(words & 0xFFFF, words >> 16)
    return tl.reshape(bits, (rows.shape[0], BLOCK)).to(tl.int32) >= threshold


@fast
@triton.jit
def product(
    x, a, out, seed, threshold, scale, tokens, features, rank, out_row,
    RANK: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, DROPS: tl.constexpr,
):  # fmt: skip
    """``out = scale * (keep * x) @ a.T``, (tokens, rank); ``a`` is (rank, features)."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    ranks = tl.program_id(1) * RANK + tl.arange(0, RANK)
    inside, present = rows < tokens, ranks < rank
    x += rows.to(tl.int64)[:, None] * features
    total = tl.zeros((ROWS, RANK), tl.float32)
    for first in range(0, features, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        valid = columns < features
        tile = tl.load(x + columns[None, :], mask=inside[:, None] & valid[None, :], other=0.0)
        if DROPS:
            tile = tl.where(_keeps(seed, rows, first, threshold, BLOCK), tile, 0.0)
        mask = present[:, None] & valid[None, :]
        thin = tl.load(a + ranks[:, None] * features + columns[None, :], mask=mask, other=0.0)
        total += tl.dot(tile, tl.trans(thin))
    out += rows.to(tl.int64)[:, None] * out_row + ranks[None, :]
    mask = inside[:, None] & present[None, :]
    tl.store(out, (total * scale).to(out.dtype.element_ty), mask=mask)


@fast
@triton.jit
def expansion(
    thin, a, out, seed, threshold, scale, tokens, features, rank, thin_row,
    RANK: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, DROPS: tl.constexpr,
    ADDS: tl.constexpr,
):  # fmt: skip
    """``out = scale * keep * (thin @ a)``, (tokens, features), or ``ADDS`` that to ``out``.

    ``thin`` is (tokens, rank).
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * BLOCK
    columns = first + tl.arange(0, BLOCK)
    inside, valid = rows < tokens, columns < features
    thin += rows.to(tl.int64)[:, None] * thin_row
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, rank, RANK):
        ranks = start + tl.arange(0, RANK)
        present = ranks < rank
        mask = inside[:, None] & present[None, :]
        left = tl.load(thin + ranks[None, :], mask=mask, other=0.0)
        mask = present[:, None] & valid[None, :]
        right = tl.load(a + ranks[:, None] * features + columns[None, :], mask=mask, other=0.0)
        total += tl.dot(left, right)
    if DROPS:
        total = tl.where(_keeps(seed, rows, first, threshold, BLOCK), total, 0.0)
    out += rows.to(tl.int64)[:, None] * features + columns[None, :]
    mask = inside[:, None] & valid[None, :]
    total *= scale
    if ADDS:
        total += tl.load(out, mask=mask, other=0.0).to(tl.float32)
    tl.store(out, total.to(out.dtype.element_ty), mask=mask)


@fast
@triton.jit
def outer(
    thin, x, out, seed, threshold, scale, tokens, features, rank, rows_of_part, thin_row,
    RANK: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, DROPS: tl.constexpr,
):  # fmt: skip
    """``out[part] = scale * thin.T @ (keep * x)`` over a part of the tokens, (rank, features)."""
    first = tl.program_id(0) * BLOCK
    part = tl.program_id(1)
    columns = first + tl.arange(0, BLOCK)
    ranks = tl.program_id(2) * RANK + tl.arange(0, RANK)
    valid, present = columns < features, ranks < rank
    total = tl.zeros((RANK, BLOCK), tl.float32)
    end = tl.minimum((part + 1) * rows_of_part, tokens)
    for start in range(part * rows_of_part, end, ROWS):
        rows = start + tl.arange(0, ROWS)
        inside = rows < end
        place = rows.to(tl.int64)[:, None] * features + columns[None, :]
        tile = tl.load(x + place, mask=inside[:, None] & valid[None, :], other=0.0)
        if DROPS:
            tile = tl.where(_keeps(seed, rows, first, threshold, BLOCK), tile, 0.0)
        place = rows.to(tl.int64)[None, :] * thin_row + ranks[:, None]
        left = tl.load(thin + place, mask=inside[None, :] & present[:, None], other=0.0)
        total += tl.dot(left, tile)
    out += (part * rank + ranks)[:, None] * features + columns[None, :]
    tl.store(out, total * scale, mask=present[:, None] & valid[None, :])
