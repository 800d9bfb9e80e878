"""``--dry_run``: what a run would take, with its data as it was tokenised."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llama_recipes_local.data.audit import SplitAudit
from llama_recipes_local.planning.cards import card
from llama_recipes_local.planning.flags import changes, free_of, words
from llama_recipes_local.planning.search import outcome, ranked
from llama_recipes_local.planning.setting import Batch
from llama_recipes_local.planning.wording import describe, details, figures
from llama_recipes_local.preflight.device_card import this_card, this_cpu
from llama_recipes_local.preflight.memory_rules import asked_setting
from llama_recipes_local.run import Run

NEXT = 2
"""Other settings that are shown."""

ELSEWHERE = 80
"""GB of the GPU that is assumed on a machine without one."""


def dry_run_text(run: Run, audits: Mapping[str, SplitAudit]) -> str:
    """Return the plan of a run that ends here; see ``plan_text``."""
    end = "--dry_run: no model was loaded, and of files only the cache of tokens was written"
    return f"{plan_text(run, audits)}\n{end}"


def plan_text(run: Run, audits: Mapping[str, SplitAudit]) -> str:
    """Return what a run would take, and other settings of what its flags do not name.

    Args:
        run: checked, with its data.
        audits: of its data, by part; empty if that is read during training.
    """
    has = this_card() or (this_cpu() if run.automatic else None)
    asked = asked_setting(run, has is not None and has.on_cpu)
    if asked is None:
        return "plan: this type of model is not known to the arithmetic"
    where = f"each {has.name}" if has else f"no GPU here; on one of {ELSEWHERE} GB"
    has = has or card(ELSEWHERE)
    training = audits.get("train")
    if training is not None:
        asked = replace(asked, batch=_with_data(asked.batch, training))
    found = outcome(asked, has)
    tokens = None if training is None else training.tokens
    lines = [f"plan ({where}): {describe(asked)}"]
    lines += details(found, run.train, tokens, "as tokenised")
    others = [each for each in ranked(asked, has, free_of(run)) if each.setting != asked]
    for each in others[:NEXT]:
        flags = " ".join(words(changes(each.setting, asked)))
        lines.append(f"  or {figures(each)}\n     {flags}")
    return "\n".join(lines)


def planned_changes(run: Run, audits: Mapping[str, SplitAudit]) -> dict[str, Any]:
    """Return the flags that make the fastest run that fits of this one, of what none names."""
    asked = asked_setting(run)
    if asked is None:
        return {}
    if (training := audits.get("train")) is not None:
        asked = replace(asked, batch=_with_data(asked.batch, training))
    best = ranked(asked, this_card() or card(ELSEWHERE), free_of(run))[0]
    return changes(best.setting, asked) if best.fits else {}


def _with_data(batch: Batch, training: SplitAudit) -> Batch:
    """Return a batch with the data's documents and labels."""
    rows, tokens = max(training.rows, 1), max(training.tokens, 1)
    return replace(batch, document=max(tokens // rows, 1), labelled=training.label_tokens / tokens)
