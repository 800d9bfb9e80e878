"""An optimiser step over a rank's micro-batches, without synchronising with the device.

The loss is the mean over the label tokens of the global batch, that is of all micro-batches on all
ranks. Their number is known before the step (``step_sync``), so each micro-batch divides its sum of
losses by it at once, and gradients need no scaling afterwards.

If the loss or gradient of a step is not finite on any rank, neither this step nor any later one
changes a weight. This is decided on the device: if the host read it before each update, the device
would be idle between steps, which costs most where steps are short. Fused optimisers get the result
as ``found_inf``, as torch's ``GradScaler`` passes it, and skip the update themselves; for all
others the host has to read it. The price is that the error is raised only when the numbers are
fetched, some steps later, with the weights of the last good step.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_

from llama_recipes_local import configs
from llama_recipes_local.models.precision import compute_context
from llama_recipes_local.optimization.parameter_groups import trained_parameters
from llama_recipes_local.parallel import (
    all_reduce_sum,
    compute_device,
    full_tensor,
    rank,
    set_gradient_sync,
    world_size,
)
from llama_recipes_local.training import batches
from llama_recipes_local.training.source_losses import SourceLosses

# A scaler starts at 2**16 and halves: after so many overflows it is at 2**-8, and the gradient
# itself is not finite.
MAX_CONSECUTIVE_OVERFLOWS = 24


@dataclass(frozen=True)
class Figures:
    """Numbers of a step, on the device.

    Attributes:
        values: (3 + ranks,) float32, the same on all ranks: the loss; the gradient's norm before
            clipping; 1 if training has to stop; 1 for each rank whose loss is not finite.
        micro_losses: (micro-batches,) float32, this rank's share of the loss by micro-batch.
        source_sums: (sources,) float64, the same on all ranks: of a mixture, the sum of the losses
            of each source's label tokens.
    """

    values: torch.Tensor
    micro_losses: torch.Tensor
    source_sums: torch.Tensor = field(default_factory=lambda: torch.zeros(0))


class Stepper:
    """Takes optimiser steps with one model and one optimiser."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: configs.train_config,
        sources: Sequence[str] = (),
    ) -> None:
        """Use this model and optimiser; ``sources`` are the names in a mixture."""
        self.model = model
        self.optimizer = optimizer
        self.config = config
        self.device = compute_device(model)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.use_fp16)
        self._trained = trained_parameters(optimizer)
        # with weights in host memory (CPU offload) torch would read found_inf there before its copy
        # has arrived: then the host reads it, and the scale is created on the weights' device
        home = self._trained[0].device
        self.scaler.scale(torch.ones((), device=home))
        on_device = home.type == self.device.type
        self._supports_found_inf = on_device and getattr(
            optimizer, "_step_supports_amp_scaling", False
        )
        self._rank_one_hot = torch.zeros(world_size(), device=self.device)
        self._rank_one_hot[rank() if world_size() > 1 else 0] = 1
        self._stopped = torch.zeros((), dtype=torch.bool, device=self.device)
        self._overflows = torch.zeros((), device=self.device)
        self._sources = SourceLosses(unwrapped(model), sources, self.device)
        self.updating = False  # while some weights may be new, and others not yet

    def state_dict(self) -> dict[str, Any]:
        """Return the scaler's state and the number of consecutive overflows, JSON-ready."""
        return {"scaler": self.scaler.state_dict(), "overflows": float(self._overflows)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from what ``state_dict`` returned."""
        self.scaler.load_state_dict(state["scaler"])
        self._overflows.fill_(state["overflows"])

    def step(self, micro_batches: list[batches.Batch], label_tokens: int) -> Figures:
        """Take a step.

        Args:
            micro_batches: this rank's, in host memory.
            label_tokens: label tokens of the global batch.
        """
        losses = self.backward(micro_batches, label_tokens)
        self.scaler.unscale_(self.optimizer)
        norm = self._gradient_norm()
        figures, skip = self._check_finite(losses, norm)
        self._clip(norm)
        self.updating = True
        self._update(skip)
        self.updating = False
        return figures

    def backward(self, micro_batches: list[batches.Batch], label_tokens: int) -> torch.Tensor:
        """Compute gradients; return the losses, (micro-batches,) float32, which sum to the step's.

        Args:
            micro_batches: this rank's, in host memory.
            label_tokens: label tokens of the global batch.
        """
        # gradients are averaged over ranks, the loss is summed over them; not a tensor, because
        # FSDP2 casts a model's floating-point inputs to the compute dtype
        share = max(label_tokens, 1) / world_size()
        losses = []
        self._sources.begin()
        # entered in each step: autocast caches its casts of the weights until it is left
        with compute_context(unwrapped(self.model), self.config):
            for number, batch in enumerate(micro_batches, 1):
                with gradient_sync(self.model, number == len(micro_batches)):
                    inputs = batches.prepare(batch, self.device)
                    with self._sources.measured(batch):
                        loss = self.model(**inputs, num_items_in_batch=share).loss
                    self.scaler.scale(loss).backward()
                losses.append(loss.detach().float())
        return torch.stack(losses)

    def _gradient_norm(self) -> torch.Tensor:
        """Return the norm of all gradients, () float32.

        torch computes it in the gradients' dtype, where bfloat16 rounding is off by up to half a
        percent. The norms of sharded gradients, one a parameter, are stacked first, so that ranks
        reduce them in one collective.
        """
        gradients = [p.grad for p in self._trained if p.grad is not None]
        norms = torch._foreach_norm(gradients, dtype=torch.float32)
        return full_tensor(torch.linalg.vector_norm(torch.stack(norms))).to(self.device)

    def _check_finite(
        self, losses: torch.Tensor, norm: torch.Tensor
    ) -> tuple[Figures, torch.Tensor]:
        """Return the step's figures, and whether to skip its update, the same on all ranks.

        Args:
            losses: (micro-batches,) float32, this rank's share of the loss by micro-batch.
            norm: () float32, the gradient's norm, the same on all ranks.
        """
        loss = losses.sum()
        own = torch.stack([loss / world_size(), (~norm.isfinite()).float()])
        shared = all_reduce_sum(torch.cat([own, self._rank_one_hot * ~loss.isfinite()]))
        bad_gradient, bad_ranks = shared[1] > 0, shared[2:].clamp(max=1)
        if self.scaler.is_enabled():
            self._overflows = (self._overflows + 1) * bad_gradient
            fatal = self._overflows > MAX_CONSECUTIVE_OVERFLOWS
        else:
            fatal = bad_gradient
        self._stopped = self._stopped | fatal | bad_ranks.any()
        values = torch.cat([torch.stack([shared[0], norm, self._stopped.float()]), bad_ranks])
        sums = self._sources.sums
        figures = Figures(values, losses, all_reduce_sum(sums) if len(sums) else sums)
        return figures, self._stopped | bad_gradient

    def _clip(self, norm: torch.Tensor) -> None:
        threshold = self.config.gradient_clipping_threshold
        if self.config.gradient_clipping and threshold > 0:
            clip_grads_with_norm_(self._trained, threshold, norm)

    def _update(self, skip: torch.Tensor) -> None:
        """Update the weights unless ``skip`` is true, which fused optimisers read on the device."""
        optimizer: Any = self.optimizer
        if self._supports_found_inf:
            optimizer.grad_scale, optimizer.found_inf = None, skip.float()
            optimizer.step()
            del optimizer.grad_scale, optimizer.found_inf
        elif not skip:
            optimizer.step()
        self.scaler.update()
        optimizer.zero_grad()


def gradient_sync(model: nn.Module, enabled: bool) -> AbstractContextManager[None]:
    """Reduce gradients over ranks in a backward pass, or keep them local until a later pass."""
    if isinstance(model, DistributedDataParallel) and not enabled:
        return model.no_sync()
    set_gradient_sync(model, enabled)
    return nullcontext()


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside DistributedDataParallel, or the model itself."""
    return model.module if isinstance(model, DistributedDataParallel) else model
