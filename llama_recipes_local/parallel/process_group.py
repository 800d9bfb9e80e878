"""The process group of a run: ranks, initialisation, collectives."""

import itertools
import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from llama_recipes_local import launch

PATIENCE = 1800  # seconds; torch's own for gloo
_groups = itertools.count()


def launched_by_torchrun() -> bool:
    """Return whether torchrun's environment variables are set, all of them."""
    return launch.launch() is not None


def rank() -> int:
    """Return this process's global rank; 0 without torchrun."""
    return launch.rank()


def world_size() -> int:
    """Return the number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_rank_zero() -> bool:
    """Return whether this is the process that prints and writes."""
    return rank() == 0


def device_type() -> str:
    """Return "cuda" if there is a CUDA device, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def setup(seconds: float = PATIENCE) -> None:
    """Initialise the process group: nccl for CUDA tensors, gloo for those in host memory.

    torchrun keeps its store when it restarts ranks, and when they train a second time. The store
    then holds the addresses of the old ranks, so each start and each group uses its own prefix.

    Args:
        seconds: how long a rank waits for another in a collective before it fails.
    """
    timeout = timedelta(seconds=seconds)
    store, rank, ranks = next(rendezvous("env://", timeout=timeout))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    options: dict[str, Any] = {"rank": rank, "world_size": ranks, "timeout": timeout}
    options["store"] = PrefixStore(f"start-{start}-{next(_groups)}", store)
    if device_type() == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device, **options)
    else:
        dist.init_process_group("gloo", **options)


def cleanup() -> None:
    """Destroy the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def from_all_ranks(own: Any) -> list[Any]:
    """Return what each rank passes, of any type that can be pickled; all ranks call it together."""
    gathered: list[Any] = [own]
    if world_size() > 1:
        gathered *= world_size()
        dist.all_gather_object(gathered, own)
    return gathered


def barrier() -> None:
    """Wait for all ranks."""
    if dist.is_initialized():
        dist.barrier()


def all_reduce_sum(value: torch.Tensor) -> torch.Tensor:
    """Return ``value`` summed over all ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(value, op=dist.ReduceOp.SUM)
    return value


def broadcast(value: torch.Tensor) -> None:
    """Replace ``value`` on all ranks by that of rank 0, in place."""
    if world_size() > 1:
        dist.broadcast(value, src=0)
