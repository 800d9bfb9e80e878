"""The flags that make a run do as a setting says."""

from collections.abc import Iterable, Mapping
from typing import Any

from llama_recipes_local.planning.search import POLICY, ROWS, SHARDING
from llama_recipes_local.planning.setting import Setting

_NAMES = {
    SHARDING: ("sharding_strategy", "hsdp"),
    POLICY: ("activation_policy", "gradient_checkpointing", "fsdp_activation_checkpointing"),
    ROWS: ("batch_size_training",),
}


def free_of(given: Iterable[str]) -> frozenset[str]:
    """Return what may be chosen for a run: what none of its flags names.

    Args:
        given: the names of the fields that flags set.
    """
    named = set(given)
    return frozenset(what for what, names in _NAMES.items() if not named & set(names))


def changes(chosen: Setting, asked: Setting) -> dict[str, Any]:
    """Return the flags, without dashes, that make the run of one setting that of another."""
    flags: dict[str, Any] = {}
    if chosen.ranks.sharding != asked.ranks.sharding:
        flags["sharding_strategy"] = chosen.ranks.sharding
    if chosen.policy != asked.policy:
        flags["activation_policy"] = chosen.policy
    if chosen.batch.rows != asked.batch.rows:
        flags["batch_size_training"] = chosen.batch.rows
        flags["gradient_accumulation_steps"] = chosen.batch.accumulation
    return flags


def words(flags: Mapping[str, Any]) -> list[str]:
    """Return flags as words of a command line."""
    found = []
    for name, value in flags.items():
        listed = ",".join(value) if isinstance(value, list) else str(value)
        found += [f"--{name}"] if value is True else [f"--{name}", listed]
    return found
