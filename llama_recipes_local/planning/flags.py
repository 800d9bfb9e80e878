"""The flags that give a run a certain setting."""

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
    """Return what may be chosen for a run: what its flags do not name, or leave open.

    The rows of an optimiser step never change, so the rows of a micro-batch and the number of
    micro-batches are one choice.
    """
    named = run.given - run.automatic
    if "batch_size_training" in run.automatic:
        named -= {"gradient_accumulation_steps"}
    return frozenset(what for what, names in NAMES.items() if not named & set(names))


def automatic(run: Run) -> frozenset[str]:
    """Return the choices that a run's flags explicitly leave open."""
    return frozenset(what for what, names in NAMES.items() if run.automatic & set(names))


def changes(chosen: Setting, asked: Setting, always: Collection[str] = ()) -> dict[str, Any]:
    """Return the flags, without dashes, that turn one setting of a run into another.

    Args:
        chosen: the setting that is wanted.
        asked: the one that the run has.
        always: flags that are returned even where both settings are the same.
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


def contradicted(run: Run, change: Collection[str]) -> list[str]:
    """Return the flags of a run that would contradict it after a change of the named flags."""
    policy, *recomputation = NAMES[POLICY]
    return [flag for flag in recomputation if policy in change and flag in run.given]


def without(flags: Collection[str]) -> str:
    """Return that flags are to be left out; "" if there are none."""
    return ", without " + ", ".join(f"--{flag}" for flag in flags) if flags else ""
