"""The sizes of HSDP's groups, for ranks that are running or planned."""

from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import word_of
from llama_recipes_local.run import Run

HYBRID = "HYBRID_SHARD"


def group_sizes(run: Run, ranks: int) -> list[Problem]:
    """Find groups of HSDP without its strategy, or whose product is not the number of ranks."""
    fsdp = run.fsdp
    strategy = word_of(fsdp, "sharding_strategy")
    if fsdp.hsdp and strategy != HYBRID and "sharding_strategy" not in run.automatic:
        why = "--hsdp only sets the sizes of that strategy's groups; they would be ignored"
        fix = f"add --sharding_strategy {HYBRID}, or leave --hsdp out"
        return [Problem(f"--hsdp with --sharding_strategy {strategy}", why, fix)]
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
