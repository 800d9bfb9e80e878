"""RMSNorm of a residual stream, fused with the addition before it and, backward, that of gradients.

Tensors are (..., features). The norm is computed in float32, as in transformers' Llama.
"""

from dataclasses import dataclass
from typing import Any

import torch

_PROGRAMS = 528  # that add up a weight's gradient, each over some rows: four for each of 132 SMs


@dataclass(frozen=True)
class NormOf:
    """The inputs of a norm, from which it is recomputed to the bit.

    Attributes:
        total: (..., features), which is kept in any case.
        weight: (features,).
        eps: added to the mean of squares.
    """

    total: torch.Tensor
    weight: torch.Tensor
    eps: float

    def again(self) -> torch.Tensor:
        """Return the norm, recomputed, (..., features)."""
        return _forward(self.total, None, self.weight, self.eps)[1]


def add_and_norm(
    stream: torch.Tensor, branch: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor, NormOf]:
    """Return ``stream + branch``, its RMSNorm, and the norm's inputs.

    In the backward pass, the gradients of both results are added as they are written.

    Args:
        stream: (..., features).
        branch: what is added to it, of the same shape; None adds nothing.
        weight: (features,).
        eps: added to the mean of squares.
    """
    total, normed = _AddAndNorm.apply(stream, branch, weight, eps)
    return total, normed, NormOf(total.detach(), weight.detach(), eps)


class _AddAndNorm(torch.autograd.Function):
    """See ``add_and_norm``."""

    @staticmethod
    def forward(
        ctx: Any,
        stream: torch.Tensor,
        branch: torch.Tensor | None,
        weight: torch.Tensor,
        eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        total, normed, scale = _forward(stream.contiguous(), branch, weight, eps)
        ctx.weight = weight.detach()
        ctx.save_for_backward(total, scale)
        return total, normed

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        total, scale = ctx.saved_tensors
        of_total, of_normed = (gradient.contiguous() for gradient in gradients)
        trained = ctx.needs_input_grad[2]
        found, of_weight = _backward(of_total, of_normed, total, scale, ctx.weight, trained)
        return found, found if ctx.needs_input_grad[1] else None, of_weight, None


def _forward(
    stream: torch.Tensor, branch: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the sum, its norm, and the factor of each row, (rows,) float32."""
    features = stream.shape[-1]
    if not stream.is_cuda:
        total = stream.clone() if branch is None else stream + branch
        wide = total.to(torch.promote_types(total.dtype, torch.float32))
        scale = torch.rsqrt(wide.square().mean(-1) + eps)
        return total, weight * (wide * scale[..., None]).to(total.dtype), scale
    from llama_recipes_local.kernels.triton import norm_kernels as kernels

    normed = torch.empty_like(stream)
    total = stream.view_as(stream) if branch is None else torch.empty_like(stream)
    rows = stream.numel() // features
    scale = torch.empty(rows, device=stream.device)
    kernels.forward[(rows,)](
        stream, None if branch is None else branch.contiguous(), weight, total, normed, scale,
        features, eps, BLOCK=_padded(features), num_warps=_warps(features),
    )  # fmt: skip
    return total, normed, scale


def _backward(
    of_total: torch.Tensor,
    of_normed: torch.Tensor,
    total: torch.Tensor,
    scale: torch.Tensor,
    weight: torch.Tensor,
    trained: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the gradient of the sum, and that of the weight if it is trained."""
    features = total.shape[-1]
    if not total.is_cuda:
        wide = total * scale[..., None]
        weighted = of_normed * weight
        inner = (weighted * wide).mean(-1, keepdim=True)
        found = of_total + ((weighted - wide * inner) * scale[..., None]).to(total.dtype)
        return found, (of_normed * wide).flatten(0, -2).sum(0) if trained else None
    from llama_recipes_local.kernels.triton import norm_kernels as kernels

    found = torch.empty_like(total)
    rows, block = total.numel() // features, _padded(features)
    if not trained:
        kernels.backward[(rows,)](
            of_total, of_normed, total, weight, scale, found,
            features, BLOCK=block, num_warps=_warps(features),
        )  # fmt: skip
        return found, None
    programs = min(rows, _PROGRAMS)
    parts = total.new_empty(programs, features, dtype=torch.float32)
    kernels.backward_trained[(programs,)](
        of_total, of_normed, total, weight, scale, found, parts,
        features, rows, programs, BLOCK=block, num_warps=_warps(features),
    )  # fmt: skip
    return found, parts.sum(0).to(weight.dtype)


def _padded(features: int) -> int:
    return 1 << (features - 1).bit_length()


def _warps(features: int) -> int:
    return 4 if features <= 2048 else 8 if features <= 8192 else 16
