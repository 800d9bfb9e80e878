"""The training loss of each source of a mixture, from the same forward passes as the loss itself.

A micro-batch may hold rows of several sources, and a packed row documents of several sources. So
the losses are collected label by label where they are summed: in transformers' loss, or in a kernel
that calls its module's ``token_losses``. For a kernel that returns neither logits nor losses, the
losses are computed again from the hidden states.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.nn import functional as F

from llama_recipes_local.data.token_rows import IGNORE_INDEX
from llama_recipes_local.parallel import full_tensor
from llama_recipes_local.training.batches import Batch, sources_of

_ELEMENTS = 1 << 26  # of logits at a time


class SourceLosses:
    """Adds up the losses of each source's labels in a step's forward passes.

    Attributes:
        sums: (sources,) float64, this rank's, since ``begin``.
    """

    def __init__(self, model: nn.Module, sources: Sequence[str], device: torch.device) -> None:
        """Measure ``model``, not wrapped in DistributedDataParallel; do nothing without sources."""
        self._base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        self._sources = sources
        self._of_labels: torch.Tensor | None = None
        self.sums = torch.zeros(len(sources), dtype=torch.float64, device=device)

    def begin(self) -> None:
        """Begin a step."""
        self.sums = torch.zeros_like(self.sums)

    @contextmanager
    def measured(self, batch: Batch) -> Iterator[None]:
        """Record the loss of each label of a batch during the forward pass in the block."""
        if not self._sources:
            yield
            return
        # a position predicts a label of its own document, so both are of one source
        self._of_labels = sources_of(batch).flatten().to(self.sums.device, non_blocking=True)
        base, own = self._base, dict(vars(self._base))
        hidden: list[torch.Tensor] = []
        hook = base.model.register_forward_hook(lambda *found: hidden.append(found[2][0].detach()))
        base.loss_function, base.token_losses = self._loss, self._add
        try:
            yield
            if self._of_labels is not None:
                self._follow(hidden[0], batch["labels"])
        finally:
            hook.remove()
            for name in ("_loss_function", "token_losses"):
                vars(base).pop(name, None)
                vars(base).update({name: own[name]} if name in own else {})

    def _loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        vocab_size: int,
        num_items_in_batch: torch.Tensor | float,
        **_: object,
    ) -> torch.Tensor:
        """Compute transformers' loss of a causal language model."""
        each = F.cross_entropy(
            logits.float().view(-1, vocab_size),
            following(labels).to(logits.device),
            ignore_index=IGNORE_INDEX,
            reduction="none",
        )
        self._add(each.detach())
        return each.sum() / num_items_in_batch

    def _add(self, losses: torch.Tensor, positions: torch.Tensor | None = None) -> None:
        """Add losses of a batch's positions, or of some of them."""
        assert self._of_labels is not None
        sources = self._of_labels if positions is None else self._of_labels[positions]
        self.sums.index_add_(0, sources, losses.double())
        self._of_labels = None

    @torch.no_grad()
    def _follow(self, hidden: torch.Tensor, labels: torch.Tensor) -> None:
        """Compute and add the losses that a kernel has not passed on.

        Args:
            hidden: (batch, seq, features), the last hidden states.
            labels: (batch, seq), in host memory.
        """
        targets = following(labels)
        positions = (targets != IGNORE_INDEX).nonzero().squeeze(1).to(hidden.device)
        targets = targets.to(hidden.device)[positions]
        weight = full_tensor(self._base.lm_head.weight).to(hidden.dtype)
        rows = max(_ELEMENTS // len(weight), 1)
        chosen = hidden.flatten(0, -2)[positions]
        each = [
            F.cross_entropy((part @ weight.T).float(), label, reduction="none")
            for part, label in zip(chosen.split(rows), targets.split(rows), strict=True)
        ]
        self._add(torch.cat(each), positions)


def following(labels: torch.Tensor) -> torch.Tensor:
    """Return the label that each position predicts, (batch * seq,): the one after it in its row."""
    return F.pad(labels, (0, 1), value=IGNORE_INDEX)[..., 1:].flatten()
