"""Passes of one rank without the others, for a trial that may fail halfway on one of them.

With FSDP2, a rank uses its own shard in place of those that the others would send: the values are
wrong, but the memory is right. Replicas compute without reducing gradients.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_api import AllGather, ReduceScatter
from torch.distributed.fsdp._fully_shard._fsdp_common import TrainingState
from torch.nn.parallel import DistributedDataParallel

_OF_A_PASS = (
    "_all_gather_result",
    "_post_reduce_event",
    "_all_reduce_state",
    "_reshard_after_forward_event",
    "_partial_reduce_output",
)
"""What a unit of torch 2.11's FSDP2 holds from one call of a pass to a later one."""


@contextmanager
def computing_alone(model: nn.Module) -> Iterator[None]:
    """Compute without other ranks inside the block, which may fail at any point.

    The caller drops the gradients left on parameters; FSDP2's own are dropped here.
    """
    if isinstance(model, DistributedDataParallel):
        with model.no_sync():
            yield
        return
    if not isinstance(model, FSDPModule):
        yield
        return
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    before = [_talks_by(unit) for unit in units]
    for unit in units:
        unit.set_custom_all_gather(_OwnGather())
        unit.set_custom_reduce_scatter(_OwnScatter())
    model.set_requires_all_reduce(False)
    try:
        yield
    finally:
        for unit, (gather, scatter) in zip(units, before, strict=True):
            unit.set_custom_all_gather(gather)
            unit.set_custom_reduce_scatter(scatter)
        model.set_requires_all_reduce(True)
        _forget_pass(model)


def _forget_pass(root: FSDPModule) -> None:
    """Reset FSDP2 after a pass that may have failed at any point."""
    recovering: Any = root
    if hasattr(root, "reset_iter_state"):  # of torch 2.13
        recovering.reset_iter_state()
        return
    top = recovering._get_fsdp_state()
    top._device_handle.synchronize()  # instead of waiting for each event that is dropped below
    top._comm_ctx.all_gather_state = top._comm_ctx.reduce_scatter_state = None
    top._comm_ctx.post_forward_order.clear()
    for state in top._state_ctx.all_states:
        state._training_state = TrainingState.IDLE
        state._modules_to_run_forward.clear()
        if (group := state._fsdp_param_group) is not None:
            group._training_state = TrainingState.IDLE
            group._post_forward_indices.clear()
            for name in _OF_A_PASS:
                setattr(group, name, None)
            group._to_sharded()
    top._state_ctx.iter_forward_root = None
    top._state_ctx.post_backward_final_callback_queued = False


def _talks_by(unit: FSDPModule) -> tuple[AllGather, ReduceScatter]:
    """Return how a unit gathers and reduces: torch has setters for this, but no getters."""
    group = unit._get_fsdp_state()._fsdp_param_group
    if group is None:  # without parameters of its own
        return _OwnGather(), _OwnScatter()
    return group._all_gather_comm, group._reduce_scatter_comm


class _Own:
    """Allocates memory as FSDP2's default does."""

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class _OwnGather(_Own, AllGather):
    """Fills each rank's part with this rank's shard, which is in place already."""

    def __call__(
        self, output_tensor: torch.Tensor, input_tensor: torch.Tensor, *args: Any, **kwargs: Any
    ) -> None:
        for part in output_tensor.split(input_tensor.numel()):
            if part.data_ptr() != input_tensor.data_ptr():
                part.copy_(input_tensor)


class _OwnScatter(_Own, ReduceScatter):
    """Returns the first part as the sum."""

    def __call__(
        self, output_tensor: torch.Tensor, input_tensor: torch.Tensor, *args: Any, **kwargs: Any
    ) -> None:
        output_tensor.copy_(input_tensor[: output_tensor.numel()])
