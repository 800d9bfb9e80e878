"""The loss of a model's head, without logits where there is no label.

The logits of some thousand positions at a time are turned into their gradients, and those into
gradients of the hidden states and of a trained head, all in the forward pass. So the logits never
exist as a whole, and those of positions without a label, such as prompts, are never computed.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from llama_recipes_local.kernels.labelled_rows import Labelled

TokenLosses = Callable[[torch.Tensor, torch.Tensor], None]
"""Takes the losses of labels, (labels,) float32, and their positions in the flat batch."""

_ELEMENTS = 1 << 28  # of logits at a time


def vocabulary_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labelled: Labelled,
    items: torch.Tensor | float,
    token_losses: TokenLosses | None = None,
) -> torch.Tensor:
    """Return the sum of the cross entropies of the labels over ``items``, () float32.

    Args:
        hidden: (batch, seq, features), the last hidden states.
        weight: (vocabulary, features) of the head.
        labelled: the labels, and where they are predicted.
        items: divisor of the sum.
        token_losses: called with the loss of each label.
    """
    flat = hidden.flatten(0, -2)
    return _Loss.apply(flat, weight, labelled.positions, labelled.labels, items, token_losses)


class _Loss(torch.autograd.Function):
    """See ``vocabulary_loss``."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        positions: torch.Tensor,
        labels: torch.Tensor,
        items: torch.Tensor | float,
        token_losses: TokenLosses | None,
    ) -> torch.Tensor:
        chosen = hidden[positions]
        rows = max(_ELEMENTS // len(weight), 1)
        losses, of_weight = [], None
        for part, label in zip(chosen.split(rows), labels.split(rows), strict=True):
            loss, gradient = _loss_and_gradient(part @ weight.T, label)
            losses.append(loss)
            if ctx.needs_input_grad[1]:  # rounded after each part, as after each micro-batch
                of_weight = _added(of_weight, gradient, part)
            torch.mm(gradient, weight, out=part)
            del gradient  # before the next part's logits are there
        each = torch.cat(losses) if losses else hidden.new_zeros(0, dtype=torch.float32)
        if token_losses is not None:
            token_losses(each, positions)
        ctx.save_for_backward(chosen, positions)
        ctx.shape, ctx.items, ctx.of_weight = hidden.shape, items, of_weight
        parts = [part.sum() for part in losses]
        total = torch.stack(parts).sum() if parts else hidden.new_zeros((), dtype=torch.float32)
        return total / items

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        found, positions = ctx.saved_tensors
        factor = (gradients[0] / ctx.items).to(found.dtype)
        of_weight, ctx.of_weight = ctx.of_weight, None
        if of_weight is not None:
            of_weight.mul_(factor)
        if not ctx.needs_input_grad[0]:
            return None, of_weight, None, None, None, None
        whole = found.new_zeros(ctx.shape)
        return whole.index_copy_(0, positions, found * factor), of_weight, None, None, None, None


def _added(
    sofar: torch.Tensor | None, gradient: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    """Return the sum of the head's gradient and that of a part's logits, (vocabulary, features)."""
    return gradient.T @ hidden if sofar is None else sofar.addmm_(gradient.T, hidden)


def _loss_and_gradient(
    logits: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cross entropies, (rows,) float32, and their sum's gradient by the logits.

    Args:
        logits: (rows, vocabulary); the gradient is written over them.
        labels: (rows,).
    """
    if not logits.is_cuda:
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = F.cross_entropy(wide, labels, reduction="none")
        gradient = wide.softmax(-1)
        gradient[torch.arange(len(labels)), labels] -= 1
        return loss, logits.copy_(gradient)
    from llama_recipes_local.kernels.triton import vocabulary_loss_kernels as kernels

    rows, vocabulary = logits.shape
    losses = torch.empty(rows, device=logits.device)
    kernels.loss_and_gradient[(rows,)](logits, labels, losses, vocabulary, BLOCK=8192, num_warps=16)
    return losses, logits
