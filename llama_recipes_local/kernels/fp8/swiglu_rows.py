"""SwiGLU with results in fp8 in one pass over memory: ``swiglu`` and ``quantize`` combined.

All tensors are (tokens, features), contiguous. Results are rounded to their dtype before they are
converted to fp8.
"""

import torch

from llama_recipes_local.kernels.fp8.scaled_rows import (
    LARGEST,
    SMALLEST,
    Rows,
    empty,
    padded,
    quantize,
    warps,
)
from llama_recipes_local.kernels.swiglu import swiglu, swiglu_backward

Factors = tuple[torch.Tensor, ...]


def swiglu_rows(gate: torch.Tensor, up: torch.Tensor, wide: bool) -> tuple[torch.Tensor, Rows]:
    """Return ``silu(gate) * up`` in their dtype (undefined unless ``wide``), and in fp8."""
    if not gate.is_cuda:
        hidden = swiglu(gate, up)
        return hidden, quantize(hidden)
    from llama_recipes_local.kernels.triton import fp8_kernels as kernels

    tokens, features = gate.shape
    made, block = empty(gate, tokens, features), padded(features)
    hidden = torch.empty_like(gate) if wide else _nothing(gate)
    kernels.swiglu[(tokens,)](
        gate, up, made.values, made.scales, hidden, features, SMALLEST, LARGEST,
        BLOCK=block, WIDE=wide, num_warps=warps(block),
    )  # fmt: skip
    return hidden, made


def swiglu_backward_rows(
    gradient: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    factors: Factors,
    wide: bool,
    again: bool,
) -> tuple[tuple[torch.Tensor, ...], Rows, torch.Tensor]:
    """Return the gradients of ``gate`` and ``up``, and ``silu(gate) * up`` if ``again``.

    Args:
        gradient: gradient of the result; it is overwritten.
        gate: as in ``swiglu_rows``.
        up: as in ``swiglu_rows``.
        factors: factors of the columns of both gradients in fp8, each (features,) float32.
        wide: whether the gradients are needed in their dtype.
        again: whether the result is needed; otherwise the last value is undefined.

    Returns:
        Both in their dtype, anything of their shape if not ``wide``; both in fp8, side by side and
        times ``factors``; and the result.
    """
    if not gate.is_cuda:
        *both, hidden = swiglu_backward(gradient, gate, up, again)
        return tuple(both), quantize(*both, factors=factors), hidden
    from llama_recipes_local.kernels.triton import fp8_kernels as kernels

    tokens, features = gate.shape
    made, block = empty(gate, tokens, 2 * features), padded(features)
    pair = tuple(torch.empty_like(gate) if wide else _nothing(gate) for _ in range(2))
    kernels.swiglu_backward[(tokens,)](
        gradient, gate, up, *factors, made.values, made.scales, *pair, features, SMALLEST, LARGEST,
        BLOCK=block, WIDE=wide, AGAIN=again, num_warps=warps(2 * block),
    )  # fmt: skip
    return pair, made, gradient


def _nothing(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor of the shape of ``x`` without memory, which must not be read or written."""
    return x.new_empty(1, 1).expand(x.shape)
