"""The flags that make a run do as a setting says."""

from collections.abc import Iterable, Mapping
from typing import Any

from llama_recipes_local import configs
from llama_recipes_local.fields import field_names
from llama_recipes_local.planning.search import POLICY, ROWS, SHARDING
from llama_recipes_local.planning.setting import FULL, KEEP, OFFLOAD, SELECTIVE, Setting

_NAMES = {
    SHARDING: ("sharding_strategy", "hsdp"),
    POLICY: ("activation_policy", "gradient_checkpointing", "fsdp_activation_checkpointing"),
    ROWS: ("batch_size_training",),
}
POLICY_FLAG = "activation_policy"


def free_of(given: Iterable[str]) -> frozenset[str]:
    """Return what may be chosen for a run: what none of its flags names.

    Args:
        given: the names of the fields that flags set.
    """
    named = set(given)
    return frozenset(what for what, names in _NAMES.items() if not named & set(names))


def policies() -> tuple[str, ...]:
    """Return what activations may become, by the flags that there are."""
    return (KEEP, FULL, OFFLOAD) if has_policy_flag() else (KEEP, FULL)


def has_policy_flag() -> bool:
    """Return whether a flag names what becomes of activations."""
    return POLICY_FLAG in field_names(configs.train_config)


def changes(chosen: Setting, asked: Setting) -> dict[str, Any]:
    """Return the flags, without dashes, that make the run of one setting that of another."""
    flags: dict[str, Any] = {}
    if chosen.ranks.sharding != asked.ranks.sharding:
        flags["sharding_strategy"] = chosen.ranks.sharding
    if chosen.policy != asked.policy:
        flags |= policy_flags(chosen.policy, chosen.ranks.uses_fsdp)
    if chosen.batch.rows != asked.batch.rows:
        flags["batch_size_training"] = chosen.batch.rows
        flags["gradient_accumulation_steps"] = chosen.batch.accumulation
    return flags


def policy_flags(policy: str, uses_fsdp: bool) -> dict[str, Any]:
    """Return the flags that say what becomes of activations."""
    if policy in (OFFLOAD, SELECTIVE):
        return {POLICY_FLAG: policy}
    name = "fsdp_activation_checkpointing" if uses_fsdp else "gradient_checkpointing"
    return {name: policy == FULL}


def words(flags: Mapping[str, Any]) -> list[str]:
    """Return flags as words of a command line."""
    found = []
    for name, value in flags.items():
        listed = ",".join(value) if isinstance(value, list) else str(value)
        found += [f"--{name}"] if value is True else [f"--{name}", listed]
    return found
