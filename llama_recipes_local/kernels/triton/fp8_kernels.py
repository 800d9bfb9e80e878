"""Triton kernels of ``fp8.values``."""

import triton
import triton.language as tl


@triton.jit
def _part(x, factors, row, stride, columns, width):
    """Return a block of a row in float32, times the factors of its columns."""
    inside = columns < width
    values = tl.load(x + row * stride + columns, mask=inside, other=0.0).to(tl.float32)
    if factors is not None:
        values *= tl.load(factors + columns, mask=inside, other=0.0)
    return values


@triton.jit
def _largest(x, factors, row, stride, width, BLOCK: tl.constexpr):
    largest = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, width, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(_part(x, factors, row, stride, columns, width)))
    return tl.max(largest)


@triton.jit
def _write(x, factors, out, scale, row, stride, width, BLOCK: tl.constexpr):
    for first in range(0, width, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        values = _part(x, factors, row, stride, columns, width) / scale
        tl.store(out + columns, values.to(out.dtype.element_ty), mask=columns < width)


@triton.jit
def quantize(
    x0, x1, x2, f0, f1, f2, out, scales, width0, width1, width2, stride0, stride1, stride2,
    width, smallest, bound, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write a row of up to three matrices side by side, and its scale: a program a row.

    A row is read twice, the second time from cache.
    """
    row = tl.program_id(0).to(tl.int64)
    largest = _largest(x0, f0, row, stride0, width0, BLOCK)
    if x1 is not None:
        largest = tl.maximum(largest, _largest(x1, f1, row, stride1, width1, BLOCK))
    if x2 is not None:
        largest = tl.maximum(largest, _largest(x2, f2, row, stride2, width2, BLOCK))
    scale = tl.maximum(largest, smallest) / bound
    tl.store(scales + row, scale)
    out += row * width
    _write(x0, f0, out, scale, row, stride0, width0, BLOCK)
    if x1 is not None:
        _write(x1, f1, out + width0, scale, row, stride1, width1, BLOCK)
    if x2 is not None:
        _write(x2, f2, out + width0 + width1, scale, row, stride2, width2, BLOCK)


@triton.jit
def transpose(x, out, rows, columns, out_row, TILE: tl.constexpr):
    """``out = x.T`` of bytes, tile by tile."""
    row = (tl.program_id(0) * TILE + tl.arange(0, TILE)).to(tl.int64)
    column = (tl.program_id(1) * TILE + tl.arange(0, TILE)).to(tl.int64)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    tile = tl.load(x + row[:, None] * columns + column[None, :], mask=inside, other=0)
    places = column[:, None] * out_row + row[None, :]
    tl.store(out + places, tl.trans(tile), mask=tl.trans(inside))
