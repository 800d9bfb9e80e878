"""Chooses what a run leaves open: sharding, recomputation and micro-batch.

A flag that says ``auto`` leaves its value open. With ``--use_fast_kernels`` on CUDA, so does a flag
that is not given. ``planning`` chooses the fastest of the settings that fit; the choice is printed
with its reason, and flags override it. The number of rows in an optimiser step never changes.

Unless ``auto`` asks for more, the rows of a micro-batch are changed only if they would not fit
otherwise. Nothing is chosen where the prediction is less reliable: for padded rows, whose length is
unknown, for parts of a model, for weights in host memory, and for the sharding of anything but
LoRA. A resumed run keeps what it was trained with, see ``resumed_choices``.
"""

from llama_recipes_local.planning import flags as planned
from llama_recipes_local.planning.cards import Card
from llama_recipes_local.planning.search import POLICY, ROWS, SHARDING, Outcome, outcome, ranked
from llama_recipes_local.planning.setting import FULL, OFFLOAD, Setting
from llama_recipes_local.planning.wording import POLICIES, wrapped
from llama_recipes_local.policies.activation_policy import recomputation_flag
from llama_recipes_local.preflight.device_card import this_card, this_cpu
from llama_recipes_local.preflight.memory_rules import asked_setting
from llama_recipes_local.preflight.resumed_choices import resumed_choices
from llama_recipes_local.run import Run


def automatic(run: Run) -> tuple[dict[str, object], str]:
    """Return the flags chosen for a run, and lines that say why; {} and "" if there are none."""
    card = this_card() or (this_cpu() if run.automatic else None)
    asked = asked_setting(run, card.on_cpu) if card is not None else None
    if card is None or asked is None:
        return {}, ""
    left = planned.automatic(run) - (frozenset() if asked.ranks.uses_fsdp else {SHARDING})
    free = planned.free_of(run) & (left | _choosable(run, asked))
    checkpoint, before, still = resumed_choices(run, asked, free)
    best = ranked(before, card, still if ROWS in left else still - {ROWS})[0]
    if not best.fits and ROWS in still:
        best = ranked(before, card, still)[0]
    if not (left or checkpoint) and (not best.fits or best.setting == asked):
        return {}, ""
    flags = _flags(run, asked, best, left & free)
    return flags, _reason(flags, best, outcome(asked, card), card, checkpoint) if flags else ""


def _choosable(run: Run, asked: Setting) -> frozenset[str]:
    """Return what is chosen without being asked for.

    Sharding is only chosen for LoRA, whose adapter all strategies save alike.
    """
    train = run.train
    parts = train.top_layers or train.train_only or train.freeze_layers
    other = train.use_peft and train.peft_method != "lora"
    unsure = train.batching_strategy != "packing" or parts or other or asked.ranks.cpu_offload
    if not train.use_fast_kernels or asked.on_cpu or unsure:
        return frozenset()
    weights = str(getattr(run.peft, "init_lora_weights", ""))
    lora = asked.adapter is not None and not weights.startswith("pissa")
    sharding = train.enable_fsdp and lora and not train.low_cpu_fsdp
    return frozenset((POLICY, ROWS, SHARDING) if sharding else (POLICY, ROWS))


def _flags(run: Run, asked: Setting, best: Outcome, left: frozenset[str]) -> dict[str, object]:
    """Return the flags of a choice; inputs of recomputed layers stay where there is room for them.

    Args:
        run: the run.
        asked: what it asks for.
        best: the choice.
        left: what the run explicitly leaves to be chosen: those flags are always given.
    """
    flags: dict[str, object] = planned.changes(best.setting, asked, left)
    keeps_inputs = best.setting.policy == FULL or (
        best.setting.policy == OFFLOAD and run.train.use_fast_kernels
    )
    if "activation_policy" in flags and keeps_inputs:
        del flags["activation_policy"]
        if POLICY in left or not asked.recomputes:
            flags[recomputation_flag(run)] = True
    return flags


def _reason(
    flags: dict[str, object], best: Outcome, asked: Outcome, card: Card, checkpoint: str
) -> str:
    """Return the lines that say what was chosen, why, and on what basis."""
    world = best.setting.ranks.world
    gpus = f"{world} {'CPU ranks' if card.on_cpu else 'GPUs'}" if world > 1 else "this device"
    instead = ""
    if best.setting != asked.setting and not checkpoint:
        before = f"{asked.tokens:,.0f}" if asked.fits else "what may not fit"
        instead = f" instead of {before}"
    least = "nothing is predicted to fit, this needs the least; "
    chosen = "Chosen"
    if checkpoint:
        least, chosen = "it is predicted not to fit; ", f"As in the {checkpoint} that is resumed,"
    lines = [
        f"--> {chosen} for {gpus} (explicit flags override it):",
        f"      {' '.join(planned.words(flags))}",
        f"      {'' if best.fits else least}{POLICIES[best.setting.policy]}; "
        f"{best.tokens:,.0f} tok/s are predicted{instead}, "
        f"with {best.needs:.1f} of {asked.has:.1f} GiB",
    ]
    if card.probed:
        lines.append(f"      by {card.rate:.2f} TFLOP/s, measured on {card.name}")
    return "\n".join(wrapped(line, 6) for line in lines)
