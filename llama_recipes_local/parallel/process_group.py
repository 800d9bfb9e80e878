"""The processes of a run: who they are, how they meet, and what they add up."""

import os
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

_TORCHRUN_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched_by_torchrun() -> bool:
    """Whether the environment names this process's place among others."""
    return all(variable in os.environ for variable in _TORCHRUN_VARIABLES)


def rank() -> int:
    """Return this process's global rank; 0 where there is one process."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_rank_zero() -> bool:
    """Whether this process is the one that speaks and writes."""
    return rank() == 0


def device_type() -> str:
    """Return "cuda" where there is a CUDA device, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def setup() -> None:
    """Join the process group: nccl for CUDA tensors, gloo for those in host memory.

    torchrun keeps its store when it starts ranks again, and there the addresses of those that are
    gone, so each start has its own part of the store.
    """
    store, rank, ranks = next(rendezvous("env://"))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    options: dict[str, Any] = {"rank": rank, "world_size": ranks}
    options["store"] = PrefixStore(f"start-{start}", store)
    if device_type() == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device, **options)
    else:
        dist.init_process_group("gloo", **options)


def cleanup() -> None:
    """Leave the process group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until all ranks are here."""
    if dist.is_initialized():
        dist.barrier()


def all_reduce_sum(value: torch.Tensor) -> torch.Tensor:
    """Return ``value`` summed over all ranks; ``value`` itself where there is one process."""
    if world_size() > 1:
        dist.all_reduce(value, op=dist.ReduceOp.SUM)
    return value


def broadcast(value: torch.Tensor) -> None:
    """Write the first rank's ``value`` over every rank's."""
    if world_size() > 1:
        dist.broadcast(value, src=0)
