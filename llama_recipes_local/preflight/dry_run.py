"""``--dry_run``: prints what a run would take, with its tokenised data."""

from collections.abc import Mapping
from typing import Any

from llama_recipes_local.configs.training import AUTO
from llama_recipes_local.data.audit import SplitAudit
from llama_recipes_local.data.concatenator import ConcatDataset
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.planning.asked import with_data
from llama_recipes_local.planning.cards import card
from llama_recipes_local.planning.flags import NAMES, changes, free_of, words
from llama_recipes_local.planning.search import SHARDING, outcome, ranked
from llama_recipes_local.planning.setting import Ranks
from llama_recipes_local.planning.wording import describe, details, figures
from llama_recipes_local.preflight.device_card import this_card, this_cpu
from llama_recipes_local.preflight.memory_rules import asked_setting
from llama_recipes_local.program import program
from llama_recipes_local.run import Run
from llama_recipes_local.screen import shell_command

NEXT = 2
"""Other settings that are shown."""

ELSEWHERE = 80
"""GB of the GPU that is assumed on a machine without one."""


def dry_run_text(run: Run, audits: Mapping[str, SplitAudit]) -> str:
    """Return the plan that ``--dry_run`` prints; see ``plan_text``."""
    end = "--dry_run: no model was loaded, and of files only the cache of tokens was written"
    return f"{plan_text(run, audits)}\n{end}"


def plan_text(run: Run, audits: Mapping[str, SplitAudit]) -> str:
    """Return what a run would take, and the alternatives that its flags leave open.

    Args:
        run: checked, with its data.
        audits: of the run's data, by part; empty for data that is read during training.
    """
    has = this_card() or (this_cpu() if run.automatic else None)
    asked = asked_setting(run, has is not None and has.on_cpu)
    if asked is None:
        return "plan: this type of model is not known to the arithmetic"
    assumed = has is None
    has = has or card(ELSEWHERE)
    where = f"no GPU here: as on {has.name}, {ELSEWHERE} GB" if assumed else f"each {has.name}"
    training = audits.get("train")
    asked = with_data(asked, training, audits.get("validation"))
    found = outcome(asked, has)
    tokens = None if training is None else training.tokens
    lines = [f"plan ({where}): {describe(asked)}"]
    held_out = audits["validation"].tokens if "validation" in audits else None
    lines += details(found, run.train, tokens, "as tokenised", held_out, _rows(run))
    others = [each for each in ranked(asked, has, free_of(run)) if each.setting != asked]
    for each in others[:NEXT]:
        flags = " ".join(words(changes(each.setting, asked, free_of(run))))
        lines.append(f"  or {figures(each)}\n     {flags}")
    return "\n".join([*lines, _elsewhere(run, asked.ranks)] if assumed else lines)


def _rows(run: Run) -> int | None:
    """Return the rows of an epoch as they are batched; None if they are read during training."""
    rows = run.data.splits.get("train") if run.data is not None else None
    if not isinstance(rows, TokenRows):
        return None
    if run.train.batching_strategy != "packing":
        return len(rows)
    return len(ConcatDataset(rows, run.train.context_length, run.train.seed))


def _elsewhere(run: Run, ranks: Ranks) -> str:
    """Return commands that plan the run for the machine where it is really trained."""
    own = {name: value for name, value in run.flags.items() if name not in ("dry_run", "rehearse")}
    where = ["--gpus", ranks.world // ranks.hosts] if ranks.world > 1 else []
    where += ["--nodes", ranks.hosts] if ranks.hosts > 1 else []
    plan = shell_command([*program(), "plan", *words(own), *map(str, where), "--gpu", "NAME"])
    return f"for another GPU, or with --probe in place of --gpu NAME for this CPU:\n{plan}"


def planned_changes(run: Run, audits: Mapping[str, SplitAudit]) -> dict[str, Any]:
    """Return the flags that turn this run into the fastest one that fits.

    They only change what no flag names. On a machine without a GPU, they leave the choice to the
    machine where the run starts.
    """
    asked, has = asked_setting(run), this_card()
    if asked is None:
        return {}
    free = free_of(run) - (frozenset() if asked.ranks.uses_fsdp else {SHARDING})
    if has is None:
        return {NAMES[what][0]: AUTO for what in sorted(free)}
    asked = with_data(asked, audits.get("train"), audits.get("validation"))
    best = ranked(asked, has, free)[0]
    return changes(best.setting, asked) if best.fits else {}
