"""Triton kernels of ``norm``; a program computes a row, which is read once."""

import triton
import triton.language as tl

from llama_recipes_local.kernels.triton.fast_launch import fast


@fast
@triton.jit
def forward(stream, branch, weight, total, normed, scale, features, eps, BLOCK: tl.constexpr):
    """Write the sum of stream and branch, if there is one, its norm, and the norm's scale."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < features
    places = row * features + columns
    x = tl.load(stream + places, mask=inside, other=0.0)
    if branch is not None:
        added = x.to(tl.float32) + tl.load(branch + places, mask=inside, other=0.0).to(tl.float32)
        x = added.to(x.dtype)
        tl.store(total + places, x, mask=inside)
    wide = x.to(tl.float32)
    factor = tl.rsqrt(tl.sum(wide * wide) / features + eps)
    tl.store(scale + row, factor)
    w = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    rounded = (wide * factor).to(x.dtype).to(tl.float32)
    tl.store(normed + places, (rounded * w).to(x.dtype), mask=inside)


@triton.jit
def _backward_row(
    row, of_total, of_normed, total, weight, scale, out, features, BLOCK: tl.constexpr
):
    """Write the gradient of a row of the sum, and return its share of the weight's gradient."""
    columns = tl.arange(0, BLOCK)
    inside = columns < features
    places = row * features + columns
    factor = tl.load(scale + row)
    x = tl.load(total + places, mask=inside, other=0.0).to(tl.float32) * factor
    w = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    given = tl.load(of_normed + places, mask=inside, other=0.0).to(tl.float32)
    weighted = given * w
    inner = tl.sum(weighted * x) / features
    own = tl.load(of_total + places, mask=inside, other=0.0).to(tl.float32)
    found = own + (weighted - x * inner) * factor
    tl.store(out + places, found.to(out.dtype.element_ty), mask=inside)
    return given * x


@fast
@triton.jit
def backward(of_total, of_normed, total, weight, scale, out, features, BLOCK: tl.constexpr):
    """Write the gradient of the sum: that through its norm, plus its own."""
    row = tl.program_id(0).to(tl.int64)
    _backward_row(row, of_total, of_normed, total, weight, scale, out, features, BLOCK)


@fast
@triton.jit
def backward_trained(
    of_total, of_normed, total, weight, scale, out, parts, features, rows, programs,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the same, and a part of the weight's gradient; a program computes several rows."""
    first = tl.program_id(0).to(tl.int64)
    of_weight = tl.zeros((BLOCK,), tl.float32)
    for row in range(first, rows, programs):
        of_weight += _backward_row(
            row, of_total, of_normed, total, weight, scale, out, features, BLOCK
        )
    columns = tl.arange(0, BLOCK)
    tl.store(parts + first * features + columns, of_weight, mask=columns < features)
