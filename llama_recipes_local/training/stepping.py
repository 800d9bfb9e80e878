"""An optimiser step over a rank's micro-batches, without waiting for the device.

The loss is the mean over the label tokens of the global batch: of all micro-batches on all ranks.
A step whose loss or gradient is not finite on any rank changes nothing, and neither does any step
after it. Fused optimisers are told so on the device; for others the host looks before each step.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
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

# A scaler begins at 2**16 and halves: after so many overflows it is at 2**-8, and the gradient
# itself is what is not finite.
MAX_CONSECUTIVE_OVERFLOWS = 24


@dataclass(frozen=True)
class Figures:
    """Numbers of a step, on the device.

    Attributes:
        values: (3 + ranks,) float32, the same on all ranks: the loss; the gradient's norm before
            clipping; 1 if training has to stop; 1 for each rank whose loss is not finite.
        micro_losses: (micro-batches,) this rank's losses, each a part of the whole.
    """

    values: torch.Tensor
    micro_losses: torch.Tensor


class Stepper:
    """Takes optimiser steps with one model and one optimiser."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, config: configs.train_config
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.config = config
        self.device = compute_device(model)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.use_fp16)
        self._trained = trained_parameters(optimizer)
        # torch does not wait for what it copies to weights in host memory before it reads it there,
        # so with those the host looks, and the scale is kept next to them
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

    def state_dict(self) -> dict[str, Any]:
        """Return the scaler's state and how many steps in a row overflowed, JSON-ready."""
        return {"scaler": self.scaler.state_dict(), "overflows": float(self._overflows)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.scaler.load_state_dict(state["scaler"])
        self._overflows.fill_(state["overflows"])

    def step(self, micro_batches: list[batches.Batch], label_tokens: int) -> Figures:
        """Take a step.

        Args:
            micro_batches: this rank's, in host memory.
            label_tokens: label tokens of the global batch.
        """
        # gradients are averaged over ranks, the loss is summed over them; no tensor, for FSDP2
        # casts those that go into a model to the compute dtype
        share = max(label_tokens, 1) / world_size()
        losses = []
        # entered anew each step: autocast keeps its casts of the weights until it is left
        with compute_context(unwrapped(self.model), self.config):
            for number, batch in enumerate(micro_batches, 1):
                with gradient_sync(self.model, number == len(micro_batches)):
                    inputs = batches.prepare(batch, self.device)
                    loss = self.model(**inputs, num_items_in_batch=share).loss
                    self.scaler.scale(loss).backward()
                losses.append(loss.detach().float())
        self.scaler.unscale_(self.optimizer)
        norm = self._gradient_norm()
        figures, skip = self._check_finite(torch.stack(losses), norm)
        self._clip(norm)
        self._update(skip)
        return figures

    def _gradient_norm(self) -> torch.Tensor:
        """Return the norm in float32; torch gives it in the gradients' dtype, rounded many times.

        Summed up of several ranks' parts in bfloat16, it would be off by half a percent. The norms
        of sharded gradients are stacked before ranks add up their parts, once for all.
        """
        gradients = [p.grad for p in self._trained if p.grad is not None]
        norms = torch._foreach_norm(gradients, dtype=torch.float32)
        return full_tensor(torch.linalg.vector_norm(torch.stack(norms))).to(self.device)

    def _check_finite(
        self, losses: torch.Tensor, norm: torch.Tensor
    ) -> tuple[Figures, torch.Tensor]:
        """Return the step's figures, and whether its update must be left out, for all ranks."""
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
        return Figures(values, losses), self._stopped | bad_gradient

    def _clip(self, norm: torch.Tensor) -> None:
        threshold = self.config.gradient_clipping_threshold
        if self.config.gradient_clipping and threshold > 0:
            clip_grads_with_norm_(self._trained, threshold, norm)

    def _update(self, skip: torch.Tensor) -> None:
        """Update the weights unless ``skip`` is true, as torch's own scaler tells optimisers."""
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
    """Reduce gradients over ranks in a backward pass, or leave them local until a later one."""
    if isinstance(model, DistributedDataParallel) and not enabled:
        return model.no_sync()
    set_gradient_sync(model, enabled)
    return nullcontext()


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside DistributedDataParallel, or the model itself."""
    return model.module if isinstance(model, DistributedDataParallel) else model
