"""The sizes of HSDP's groups, for ranks that are running or planned."""

from llama_recipes_local.errors import Problem
from llama_recipes_local.run import Run


def group_sizes(run: Run, ranks: int) -> list[Problem]:
    """Find group sizes of HSDP whose product is not the number of ranks."""
    fsdp = run.fsdp
    if not fsdp.hsdp or fsdp.replica_group_size * fsdp.sharding_group_size == ranks:
        return []
    return [
        Problem(
            f"--hsdp with --replica_group_size {fsdp.replica_group_size} and "
            f"--sharding_group_size {fsdp.sharding_group_size}",
            f"their product must be the number of ranks, which is {ranks}",
            "give both, or leave --hsdp out to shard inside each host",
        )
    ]
