"""Replicated weights, as with ``NO_SHARD``: torch's DistributedDataParallel.

FSDP2 on a mesh of replicas is not used, because it keeps a gathered copy beside each parameter from
the forward to the backward pass, so that every weight would be held twice.
"""

from collections import deque
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import GradBucket  # type: ignore[attr-defined]
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from llama_recipes_local.parallel.process_group import world_size

AT_ONCE = 8
"""Buckets that are reduced at once: torch's are of 25 MiB, or a larger weight."""


def with_shared_gradients(model: nn.Module) -> nn.Module:
    """Return a model whose backward passes average gradients over ranks.

    This is the model itself on a single rank, or if FSDP2 or the caller averages gradients already.
    Frozen parameters take no part. Buckets of gradients are reduced while others are computed.
    Nothing is broadcast at the start, because every rank has loaded the same weights.

    Args:
        model: on its device, the same on all ranks; all ranks call this together.
    """
    if world_size() == 1 or isinstance(model, (FSDPModule, DistributedDataParallel)):
        return model
    replica = DistributedDataParallel(
        model,
        init_sync=False,
        gradient_as_bucket_view=True,
        find_unused_parameters=_may_skip_parameters(model),
    )
    replica.broadcast_buffers = False  # its argument is deprecated in newer versions of torch
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if any(parameter.dtype != torch.float32 for parameter in trained):
        replica.register_comm_hook(deque(), average_in_float32)
    return replica


def average_in_float32(
    reducing: "deque[torch.cuda.Event]", bucket: GradBucket
) -> torch.futures.Future[torch.Tensor]:
    """Average gradients over ranks in float32, as FSDP2 does, whatever their own dtype is.

    On CUDA the host waits before it reduces more than ``AT_ONCE``: it is ahead of the device by
    most of a backward pass, and would hold as many copies in float32.

    Args:
        reducing: when each of the last ones is reduced.
        bucket: some gradients.
    """
    gradients = bucket.buffer()
    while len(reducing) >= AT_ONCE:
        reducing.popleft().synchronize()
    reduced = dist.all_reduce(gradients.float().div_(world_size()), async_op=True)
    assert reduced is not None  # that is for ranks outside of the group

    def copy_back(done: torch.futures.Future[Any]) -> torch.Tensor:
        wide = done.value()[0]
        gradients.copy_(wide)
        if wide.is_cuda:
            stream = torch.cuda.current_stream()  # this function's own
            wide.record_stream(stream)
            reduced.wait()  # or the group keeps the copy until it is next called
            reducing.append(stream.record_event())
        return gradients

    return reduced.get_future().then(copy_back)


def _may_skip_parameters(model: nn.Module) -> bool:
    """Return whether a step may leave parameters unused, as a vision model does without images."""
    config: Any = getattr(model, "config", None)
    return hasattr(config, "vision_config")
