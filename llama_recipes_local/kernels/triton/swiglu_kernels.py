"""Triton kernels of ``swiglu``, over all elements."""

import triton
import triton.language as tl

from llama_recipes_local.kernels.triton.fast_launch import fast


@fast
@triton.jit
def forward(gate, up, out, size, BLOCK: tl.constexpr):
    """``out = silu(gate) * up``."""
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < size
    x = tl.load(gate + places, mask=inside).to(tl.float32)
    y = tl.load(up + places, mask=inside).to(tl.float32)
    tl.store(out + places, (x * tl.sigmoid(x) * y).to(out.dtype.element_ty), mask=inside)


@fast
@triton.jit
def backward(gradient, gate, up, of_gate, of_up, size, BLOCK: tl.constexpr, AGAIN: tl.constexpr):
    """Write the gradients of ``gate`` and ``up``; with ``AGAIN`` the result over its gradient."""
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < size
    dh = tl.load(gradient + places, mask=inside).to(tl.float32)
    x = tl.load(gate + places, mask=inside).to(tl.float32)
    y = tl.load(up + places, mask=inside).to(tl.float32)
    sigmoid = tl.sigmoid(x)
    silu = x * sigmoid
    dtype = of_gate.dtype.element_ty
    tl.store(of_up + places, (dh * silu).to(dtype), mask=inside)
    slope = sigmoid * (1 + x * (1 - sigmoid))
    tl.store(of_gate + places, (dh * y * slope).to(dtype), mask=inside)
    if AGAIN:
        tl.store(gradient + places, (silu * y).to(dtype), mask=inside)
