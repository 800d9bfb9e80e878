"""Triton kernels for products with LoRA's thin matrices, with dropout computed in the kernel.

A launch computes up to three layers with the same input, because launching a small kernel takes the
host longer than running it takes the device. Each kernel reads or writes its wide tensors, (tokens,
width) and contiguous, once, which bounds its speed. Thin matrices are padded to ``RANK`` when they
are read. ``a0``, ``a1`` and ``a2`` are (rank, width), contiguous. The thin outputs of the layers
are side by side, and their rows may have a stride. Masks are those of ``lora.dropout``; no compiled
kernel depends on the seed.
"""

import triton
import triton.language as tl

from llama_recipes_local.kernels.lora.dropout import LANES, ROUNDS
from llama_recipes_local.kernels.triton.fast_launch import fast

_LANES = tl.constexpr(LANES)
_ROUNDS = tl.constexpr(ROUNDS)


@triton.jit
def _keeps(seed, rows, first, threshold, BLOCK: tl.constexpr):
    """Return which of ``BLOCK`` columns, starting at ``first``, are kept, (rows, BLOCK)."""
    groups = first // _LANES + tl.arange(0, BLOCK // _LANES)
    a, b, c, d = tl.philox(seed, rows[:, None], groups[None, :], 0, 0, _ROUNDS)
    words = tl.join(tl.join(a, b), tl.join(c, d))
    bits = tl.join(words & 0xFFFF, words >> 16)
    return tl.reshape(bits, (rows.shape[0], BLOCK)).to(tl.int32) >= threshold


@triton.jit
def _pack(
    x, out, column, width, rank, width_step, rank_step, RANK: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Write a tile of a matrix as (rank, width)."""
    ranks = tl.program_id(1) * RANK + tl.arange(0, RANK)[:, None]
    columns = column * BLOCK + tl.arange(0, BLOCK)[None, :]
    mask = (ranks < rank) & (columns < width)
    tile = tl.load(x + ranks * rank_step + columns * width_step, mask=mask)
    tl.store(out + ranks * width + columns, tile.to(out.dtype.element_ty), mask=mask)


@fast
@triton.jit
def pack(
    a0, a1, a2, b0, b1, b2, out, features, width0, width1, width2, rank0, rank1, rank2,
    RANK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write all ``a``, (rank, features), stacked, then each ``b`` transposed."""
    block = tl.program_id(0)
    blocks = tl.cdiv(features, BLOCK)
    b_out = out + (rank0 + rank1 + rank2) * features
    end0 = blocks + tl.cdiv(width0, BLOCK)
    end1 = end0 + blocks + tl.cdiv(width1, BLOCK)
    if block < blocks:
        _pack(a0, out, block, features, rank0, 1, features, RANK, BLOCK)
    elif a1 is None or block < end0:
        _pack(b0, b_out, block - blocks, width0, rank0, rank0, 1, RANK, BLOCK)
    elif block < end0 + blocks:
        out += rank0 * features
        _pack(a1, out, block - end0, features, rank1, 1, features, RANK, BLOCK)
    elif a2 is None or block < end1:
        b_out += rank0 * width0
        _pack(b1, b_out, block - end0 - blocks, width1, rank1, rank1, 1, RANK, BLOCK)
    elif block < end1 + blocks:
        out += (rank0 + rank1) * features
        _pack(a2, out, block - end1, features, rank2, 1, features, RANK, BLOCK)
    else:
        b_out += rank0 * width0 + rank1 * width1
        _pack(b2, b_out, block - end1 - blocks, width2, rank2, rank2, 1, RANK, BLOCK)


@triton.jit
def _product(
    x, a, out, part, seed, threshold, scale, tokens, width, rank, out_row,
    RANK: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, DROPS: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    ranks = part * RANK + tl.arange(0, RANK)
    inside, present = rows < tokens, ranks < rank
    x += rows.to(tl.int64)[:, None] * width
    total = tl.zeros((ROWS, RANK), tl.float32)
    for first in range(0, width, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        valid = columns < width
        tile = tl.load(x + columns[None, :], mask=inside[:, None] & valid[None, :], other=0.0)
        if DROPS:
            tile = tl.where(_keeps(seed, rows, first, threshold, BLOCK), tile, 0.0)
        mask = present[:, None] & valid[None, :]
        thin = tl.load(a + ranks[:, None] * width + columns[None, :], mask=mask, other=0.0)
        total += tl.dot(tile, tl.trans(thin))
    out += rows.to(tl.int64)[:, None] * out_row + ranks[None, :]
    mask = inside[:, None] & present[None, :]
    tl.store(out, (total * scale).to(out.dtype.element_ty), mask=mask)


@fast
@triton.jit(do_not_specialize=["seed"])
def product(
    x0, x1, x2, a0, a1, a2, out, seed, threshold, scale0, scale1, scale2,
    tokens, width0, width1, width2, rank0, rank1, rank2, out_row,
    RANK: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, DROPS: tl.constexpr,
):  # fmt: skip
    """``out = scale * (keep * x) @ a.T`` of each pair side by side, (tokens, ranks)."""
    part = tl.program_id(1)
    end0 = tl.cdiv(rank0, RANK)
    end1 = end0 + tl.cdiv(rank1, RANK)
    if x1 is None or part < end0:
        _product(
            x0, a0, out, part, seed, threshold, scale0, tokens, width0, rank0, out_row,
            RANK, ROWS, BLOCK, DROPS,
        )  # fmt: skip
    elif x2 is None or part < end1:
        _product(
            x1, a1, out + rank0, part - end0, seed, threshold, scale1, tokens, width1, rank1,
            out_row, RANK, ROWS, BLOCK, DROPS,
        )  # fmt: skip
    else:
        _product(
            x2, a2, out + rank0 + rank1, part - end1, seed, threshold, scale2, tokens, width2,
            rank2, out_row, RANK, ROWS, BLOCK, DROPS,
        )  # fmt: skip


@triton.jit
def _expansion(
    thin, a, out, block, seed, threshold, scale, tokens, width, rank, thin_row,
    RANK: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, DROPS: tl.constexpr,
    ADDS: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = block * BLOCK
    columns = first + tl.arange(0, BLOCK)
    inside, valid = rows < tokens, columns < width
    thin += rows.to(tl.int64)[:, None] * thin_row
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, rank, RANK):
        ranks = start + tl.arange(0, RANK)
        present = ranks < rank
        mask = inside[:, None] & present[None, :]
        left = tl.load(thin + ranks[None, :], mask=mask, other=0.0)
        mask = present[:, None] & valid[None, :]
        right = tl.load(a + ranks[:, None] * width + columns[None, :], mask=mask, other=0.0)
        total += tl.dot(left, right)
    if DROPS:
        total = tl.where(_keeps(seed, rows, first, threshold, BLOCK), total, 0.0)
    out += rows.to(tl.int64)[:, None] * width + columns[None, :]
    mask = inside[:, None] & valid[None, :]
    total *= scale
    if ADDS:
        total += tl.load(out, mask=mask, other=0.0).to(tl.float32)
    tl.store(out, total.to(out.dtype.element_ty), mask=mask)


@fast
@triton.jit(do_not_specialize=["seed"])
def expansion(
    thin, a0, a1, a2, out0, out1, out2, seed, threshold, scale0, scale1, scale2,
    tokens, width0, width1, width2, rank0, rank1, rank2, thin_row,
    RANK: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, DROPS: tl.constexpr,
    ADDS: tl.constexpr,
):  # fmt: skip
    """``out = scale * keep * (thin @ a)`` of each part of ``thin``; with ``ADDS`` added to ``out``.

    ``thin`` is (tokens, ranks), each ``out`` (tokens, width).
    """
    block = tl.program_id(1)
    end0 = tl.cdiv(width0, BLOCK)
    end1 = end0 + tl.cdiv(width1, BLOCK)
    if a1 is None or block < end0:
        _expansion(
            thin, a0, out0, block, seed, threshold, scale0, tokens, width0, rank0, thin_row,
            RANK, ROWS, BLOCK, DROPS, ADDS,
        )  # fmt: skip
    elif a2 is None or block < end1:
        _expansion(
            thin + rank0, a1, out1, block - end0, seed, threshold, scale1, tokens, width1, rank1,
            thin_row, RANK, ROWS, BLOCK, DROPS, ADDS,
        )  # fmt: skip
    else:
        _expansion(
            thin + rank0 + rank1, a2, out2, block - end1, seed, threshold, scale2, tokens, width2,
            rank2, thin_row, RANK, ROWS, BLOCK, DROPS, ADDS,
        )  # fmt: skip


@triton.jit
def _outer(
    thin, x, out, block, seed, threshold, scale, tokens, width, rank, width_step, rank_step,
    rows_of_part, thin_row,
    RANK: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, DROPS: tl.constexpr,
):  # fmt: skip
    """Write ``scale * thin.T @ (keep * x)`` of a part of the tokens, with strides of its own."""
    first = block * BLOCK
    part = tl.program_id(1)
    columns = first + tl.arange(0, BLOCK)
    ranks = tl.program_id(2) * RANK + tl.arange(0, RANK)
    valid, present = columns < width, ranks < rank
    total = tl.zeros((RANK, BLOCK), tl.float32)
    end = tl.minimum((part + 1) * rows_of_part, tokens)
    end = tl.where(tl.program_id(2) * RANK < rank, end, 0)  # where another layer has more ranks
    for start in range(part * rows_of_part, end, ROWS):
        rows = start + tl.arange(0, ROWS)
        inside = rows < end
        place = rows.to(tl.int64)[:, None] * width + columns[None, :]
        tile = tl.load(x + place, mask=inside[:, None] & valid[None, :], other=0.0)
        if DROPS:
            tile = tl.where(_keeps(seed, rows, first, threshold, BLOCK), tile, 0.0)
        place = rows.to(tl.int64)[None, :] * thin_row + ranks[:, None]
        left = tl.load(thin + place, mask=inside[None, :] & present[:, None], other=0.0)
        total += tl.dot(left, tile)
    out += ranks[:, None] * rank_step + columns[None, :] * width_step
    tl.store(out, total * scale, mask=present[:, None] & valid[None, :])


@fast
@triton.jit(do_not_specialize=["seed"])
def gradients(
    of_low, x, low, of_out0, of_out1, of_out2, out, seed, threshold, scale, scale0, scale1, scale2,
    tokens, features, width0, width1, width2, ranks, rank0, rank1, rank2, rows_of_part,
    of_low_row, low_row, total,
    RANK: tl.constexpr, OWN: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    DROPS: tl.constexpr,
):  # fmt: skip
    """Write the gradients of all ``a``, (ranks, features), and of each B, (width, rank), in turn.

    They are sums over a part of the tokens. ``OWN`` is the padded rank of one layer, ``RANK`` that
    of all.
    """
    block = tl.program_id(0)
    out += tl.program_id(1) * total
    b_out = out + ranks * features
    blocks = tl.cdiv(features, BLOCK)
    end0 = blocks + tl.cdiv(width0, BLOCK)
    end1 = end0 + tl.cdiv(width1, BLOCK)
    if block < blocks:
        _outer(
            of_low, x, out, block, seed, threshold, scale, tokens, features, ranks, 1, features,
            rows_of_part, of_low_row, RANK, ROWS, BLOCK, DROPS,
        )  # fmt: skip
    elif of_out1 is None or block < end0:
        _outer(
            low, of_out0, b_out, block - blocks, seed, threshold, scale0, tokens, width0, rank0,
            rank0, 1, rows_of_part, low_row, OWN, ROWS, BLOCK, False,
        )  # fmt: skip
    elif of_out2 is None or block < end1:
        b_out += rank0 * width0
        _outer(
            low + rank0, of_out1, b_out, block - end0, seed, threshold, scale1, tokens, width1,
            rank1, rank1, 1, rows_of_part, low_row, OWN, ROWS, BLOCK, False,
        )  # fmt: skip
    else:
        b_out += rank0 * width0 + rank1 * width1
        _outer(
            low + rank0 + rank1, of_out2, b_out, block - end1, seed, threshold, scale2, tokens,
            width2, rank2, rank2, 1, rows_of_part, low_row, OWN, ROWS, BLOCK, False,
        )  # fmt: skip
