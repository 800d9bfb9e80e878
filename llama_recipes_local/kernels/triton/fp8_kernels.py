"""Triton kernels of ``fp8.scaled_rows`` and ``fp8.swiglu_rows``; a program computes a row."""

import triton
import triton.language as tl

from llama_recipes_local.kernels.triton.fast_launch import fast


@triton.jit
def _read(x, row, width, stride, BLOCK: tl.constexpr):
    columns = tl.arange(0, BLOCK)
    places = row * stride + columns
    return tl.load(x + places, mask=columns < width, other=0.0).to(tl.float32)


@triton.jit
def _times(values, factors, width, BLOCK: tl.constexpr):
    """Return values times the factors of their columns, if there are any."""
    if factors is not None:
        columns = tl.arange(0, BLOCK)
        values *= tl.load(factors + columns, mask=columns < width, other=0.0)
    return values


@triton.jit
def _largest(values, out, place):
    """Write the largest of the values, if it is asked for."""
    if out is not None:
        tl.store(out + place, tl.max(tl.abs(values)))


@triton.jit
def _scale(largest, smallest, bound):
    return tl.maximum(largest, smallest) / bound


@triton.jit
def _write(values, out, inverse, width, BLOCK: tl.constexpr):
    columns = tl.arange(0, BLOCK)
    tl.store(out + columns, (values * inverse).to(out.dtype.element_ty), mask=columns < width)


@fast
@triton.jit
def quantize(
    x0, x1, x2, f0, f1, f2, out, scales, own, rows, width0, width1, width2,
    stride0, stride1, stride2, width, smallest, bound,
    BLOCK0: tl.constexpr, BLOCK1: tl.constexpr, BLOCK2: tl.constexpr,
):  # fmt: skip
    """Write a row of up to three matrices side by side, its scale, and the largest of each part."""
    row = tl.program_id(0).to(tl.int64)
    out += row * width
    first = _read(x0, row, width0, stride0, BLOCK0)
    _largest(first, own, row)
    first = _times(first, f0, width0, BLOCK0)
    largest = tl.max(tl.abs(first))
    if x1 is not None:
        second = _read(x1, row, width1, stride1, BLOCK1)
        _largest(second, own, rows + row)
        second = _times(second, f1, width1, BLOCK1)
        largest = tl.maximum(largest, tl.max(tl.abs(second)))
    if x2 is not None:
        third = _read(x2, row, width2, stride2, BLOCK2)
        _largest(third, own, 2 * rows + row)
        third = _times(third, f2, width2, BLOCK2)
        largest = tl.maximum(largest, tl.max(tl.abs(third)))
    scale = _scale(largest, smallest, bound)
    tl.store(scales + row, scale)
    _write(first, out, 1.0 / scale, width0, BLOCK0)
    if x1 is not None:
        _write(second, out + width0, 1.0 / scale, width1, BLOCK1)
    if x2 is not None:
        _write(third, out + width0 + width1, 1.0 / scale, width2, BLOCK2)


@triton.jit
def _turn(x, out, rows, columns, out_row, tile, TILE: tl.constexpr):
    across = tl.cdiv(columns, TILE)
    row = (tile // across * TILE + tl.arange(0, TILE)).to(tl.int64)
    column = (tile % across * TILE + tl.arange(0, TILE)).to(tl.int64)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    values = tl.load(x + row[:, None] * columns + column[None, :], mask=inside, other=0)
    places = column[:, None] * out_row + row[None, :]
    tl.store(out + places, tl.trans(values), mask=tl.trans(inside))


@fast
@triton.jit
def transpose(x0, x1, x2, out, rows0, rows1, rows2, columns, out_row, TILE: tl.constexpr):
    """Write up to three byte matrices transposed and side by side; a program computes a tile."""
    tile = tl.program_id(0)
    across = tl.cdiv(columns, TILE)
    first, second = tl.cdiv(rows0, TILE) * across, tl.cdiv(rows1, TILE) * across
    if x1 is None or tile < first:
        _turn(x0, out, rows0, columns, out_row, tile, TILE)
    elif x2 is None or tile < first + second:
        _turn(x1, out + rows0, rows1, columns, out_row, tile - first, TILE)
    else:
        _turn(x2, out + rows0 + rows1, rows2, columns, out_row, tile - first - second, TILE)


@fast
@triton.jit
def turn(x, factors, out, rows, columns, out_row, TILE: tl.constexpr):
    """Write a matrix transposed, as bytes: the matrix itself, or its rows times factors in fp8."""
    tile = tl.program_id(0)
    across = tl.cdiv(columns, TILE)
    row = (tile // across * TILE + tl.arange(0, TILE)).to(tl.int64)
    column = (tile % across * TILE + tl.arange(0, TILE)).to(tl.int64)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    values = tl.load(x + row[:, None] * columns + column[None, :], mask=inside, other=0)
    if factors is not None:
        factor = tl.load(factors + row, mask=row < rows, other=0.0)
        values = (values.to(tl.float32) * factor[:, None]).to(tl.float8e4nv)
        values = values.to(tl.uint8, bitcast=True)
    places = column[:, None] * out_row + row[None, :]
    tl.store(out + places, tl.trans(values), mask=tl.trans(inside))


@fast
@triton.jit
def swiglu(
    gate, up, out, scales, wide, features, smallest, bound, BLOCK: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """Write a row of ``silu(gate) * up`` in fp8 and its scale; with ``WIDE`` in its dtype too."""
    row = tl.program_id(0).to(tl.int64)
    x = _read(gate, row, features, features, BLOCK)
    values = x * tl.sigmoid(x) * _read(up, row, features, features, BLOCK)
    values = values.to(gate.dtype.element_ty).to(tl.float32)
    scale = _scale(tl.max(tl.abs(values)), smallest, bound)
    tl.store(scales + row, scale)
    _write(values, out + row * features, 1.0 / scale, features, BLOCK)
    if WIDE:
        _write(values, wide + row * features, 1.0, features, BLOCK)


@fast
@triton.jit
def swiglu_backward(
    gradient, gate, up, f_gate, f_up, out, scales, of_gate, of_up, features, smallest, bound,
    BLOCK: tl.constexpr, WIDE: tl.constexpr, AGAIN: tl.constexpr,
):  # fmt: skip
    """Write a row of both gradients side by side in fp8, and its scale.

    With ``WIDE`` it also writes them in their dtype, with ``AGAIN`` the result over its gradient.
    """
    row = tl.program_id(0).to(tl.int64)
    dh = _read(gradient, row, features, features, BLOCK)
    x = _read(gate, row, features, features, BLOCK)
    y = _read(up, row, features, features, BLOCK)
    sigmoid = tl.sigmoid(x)
    silu = x * sigmoid
    dtype = gate.dtype.element_ty
    d_up = (dh * silu).to(dtype).to(tl.float32)
    d_gate = (dh * y * (sigmoid * (1 + x * (1 - sigmoid)))).to(dtype).to(tl.float32)
    if AGAIN:
        _write(silu * y, gradient + row * features, 1.0, features, BLOCK)
    if WIDE:
        _write(d_gate, of_gate + row * features, 1.0, features, BLOCK)
        _write(d_up, of_up + row * features, 1.0, features, BLOCK)
    d_gate = _times(d_gate, f_gate, features, BLOCK)
    d_up = _times(d_up, f_up, features, BLOCK)
    largest = tl.maximum(tl.max(tl.abs(d_gate)), tl.max(tl.abs(d_up)))
    scale = _scale(largest, smallest, bound)
    tl.store(scales + row, scale)
    out += row * 2 * features
    _write(d_gate, out, 1.0 / scale, features, BLOCK)
    _write(d_up, out + features, 1.0 / scale, features, BLOCK)
