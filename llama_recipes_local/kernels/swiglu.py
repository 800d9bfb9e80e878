"""SwiGLU, ``silu(gate) * up``, and its gradients, each in one pass over memory.

All tensors are (tokens, features), contiguous, and computed in float32.
"""

import torch
from torch.nn import functional as F

_BLOCK = 4096


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Return ``silu(gate) * up``."""
    if not gate.is_cuda:
        return F.silu(gate) * up
    from llama_recipes_local.kernels.triton import swiglu_kernels as kernels

    out = torch.empty_like(gate)
    size = gate.numel()
    kernels.forward[(-(-size // _BLOCK),)](gate, up, out, size, BLOCK=_BLOCK)
    return out


def swiglu_backward(
    gradient: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, again: bool, over: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of ``gate`` and ``up``, and ``silu(gate) * up`` if ``again``.

    Args:
        gradient: gradient of the result; it is overwritten.
        gate: as in ``swiglu``.
        up: as in ``swiglu``.
        again: whether the result is needed; otherwise the third value is undefined.
        over: whether the gradients may overwrite ``gate`` and ``up``.
    """
    if not gate.is_cuda:
        sigmoid = torch.sigmoid(gate)
        silu = gate * sigmoid
        slope = sigmoid * (1 + gate * (1 - sigmoid))
        return gradient * up * slope, gradient * silu, silu * up
    from llama_recipes_local.kernels.triton import swiglu_kernels as kernels

    of_gate, of_up = (gate, up) if over else (torch.empty_like(gate), torch.empty_like(up))
    size = gate.numel()
    kernels.backward[(-(-size // _BLOCK),)](
        gradient, gate, up, of_gate, of_up, size, BLOCK=_BLOCK, AGAIN=again
    )
    return of_gate, of_up, gradient
