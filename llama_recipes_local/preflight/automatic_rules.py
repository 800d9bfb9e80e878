"""Refuses "auto" for flags that preflight cannot choose a value for."""

from llama_recipes_local.errors import Problem
from llama_recipes_local.planning.shapes import shape_of
from llama_recipes_local.preflight.model_sizes import model_config
from llama_recipes_local.run import Run


def check_automatic(run: Run) -> list[Problem]:
    """Find flags that say "auto" where another flag names the value, or none can be chosen."""
    found = []
    if "sharding_strategy" in run.automatic and "hsdp" in run.given:
        why = "--hsdp sets the sizes of HYBRID_SHARD's groups"
        fix = "use --sharding_strategy HYBRID_SHARD, or leave --hsdp out"
        found.append(Problem("--sharding_strategy auto with --hsdp", why, fix))
    config = model_config(run)
    if config and shape_of(config) is None:
        why = f"no memory and speed are known of models of type {config.get('model_type')}"
        found += [
            Problem(f"--{name} auto", why, f"name one, or leave --{name} out")
            for name in sorted(run.automatic)
        ]
    return found
