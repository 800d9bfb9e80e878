"""The flags that make a run do as a setting says."""

from collections.abc import Collection, Mapping
from typing import Any

from llama_recipes_local.planning.search import POLICY, ROWS, SHARDING
from llama_recipes_local.planning.setting import Setting
from llama_recipes_local.run import Run

NAMES = {
    SHARDING: ("sharding_strategy", "hsdp"),
    POLICY: ("activation_policy", "gradient_checkpointing", "fsdp_activation_checkpointing"),
    ROWS: ("batch_size_training", "gradient_accumulation_steps"),
}
"""Names of the fields that say what may be chosen."""


def free_of(run: Run) -> frozenset[str]:
    """Return what may be chosen for a run: what none of its flags names, or what one leaves to it.

    The rows of an optimiser step stay, so that what both flags of rows name is one choice.
    """
    named = run.given - run.automatic
    if "batch_size_training" in run.automatic:
        named -= {"gradient_accumulation_steps"}
    return frozenset(what for what, names in NAMES.items() if not named & set(names))


def automatic(run: Run) -> frozenset[str]:
    """Return what the flags of a run say is to be chosen."""
    return frozenset(what for what, names in NAMES.items() if run.automatic & set(names))


def changes(chosen: Setting, asked: Setting, always: Collection[str] = ()) -> dict[str, Any]:
    """Return the flags, without dashes, that make the run of one setting that of another.

    Args:
        chosen: the setting that is wanted.
        asked: the one that the run has.
        always: what is named even where both are the same.
    """
    flags: dict[str, Any] = {}
    other = chosen.ranks.sharding != asked.ranks.sharding
    if other or (SHARDING in always and chosen.ranks.uses_fsdp):
        flags["sharding_strategy"] = chosen.ranks.sharding
    if chosen.policy != asked.policy or POLICY in always:
        flags["activation_policy"] = chosen.policy
    if chosen.batch.rows != asked.batch.rows or ROWS in always:
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
