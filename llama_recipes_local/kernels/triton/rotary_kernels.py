"""Triton kernel of ``rotary``; a program computes a token."""

import triton
import triton.language as tl

from llama_recipes_local.kernels.triton.fast_launch import fast


@triton.jit
def _rotate_heads(x, out, token, heads, half, cos, sin, HEADS: tl.constexpr, HALF: tl.constexpr):
    head, column = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (column < half)
    places = (token * heads + head) * (2 * half) + column
    left = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(x + places + half, mask=inside, other=0.0).to(tl.float32)
    dtype = out.dtype.element_ty
    tl.store(out + places, (left * cos - right * sin).to(dtype), mask=inside)
    tl.store(out + places + half, (right * cos + left * sin).to(dtype), mask=inside)


@fast
@triton.jit
def rotate(
    query, key, query_out, key_out, cos, sin, sign, seq, angles_of_row, heads, kv_heads, half,
    HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """Rotate all heads of a token; its two halves are real and imaginary parts."""
    token = tl.program_id(0).to(tl.int64)
    place = token // seq * angles_of_row + token % seq
    column = tl.arange(0, HALF)[None, :]
    places = place * (2 * half) + column
    c = tl.load(cos + places, mask=column < half, other=0.0).to(tl.float32)
    s = tl.load(sin + places, mask=column < half, other=0.0).to(tl.float32) * sign
    _rotate_heads(query, query_out, token, heads, half, c, s, HEADS, HALF)
    _rotate_heads(key, key_out, token, kv_heads, half, c, s, HEADS, HALF)
