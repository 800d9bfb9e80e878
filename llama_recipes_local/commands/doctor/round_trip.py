"""A process that ``ranks`` starts: ``python -m ... BACKEND RANKS RANK PORT``."""

import sys
from datetime import timedelta

import torch
import torch.distributed as dist

_TIMEOUT = timedelta(seconds=60)


def main() -> None:
    """Add up the numbers of all ranks; exit with 1 if the sum is wrong."""
    backend, ranks, rank, port = sys.argv[1], *map(int, sys.argv[2:5])
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    dist.init_process_group(
        backend,
        init_method=f"tcp://127.0.0.1:{port}",
        world_size=ranks,
        rank=rank,
        timeout=_TIMEOUT,
        device_id=device if backend == "nccl" else None,
    )
    numbers = torch.full((1000,), float(rank + 1), device=device)
    dist.all_reduce(numbers)
    dist.destroy_process_group()
    if not bool((numbers == ranks * (ranks + 1) / 2).all()):
        sys.exit("the sum of the ranks' numbers is wrong")


if __name__ == "__main__":
    main()
