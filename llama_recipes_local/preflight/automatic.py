"""What ``--use_fast_kernels`` chooses of what is not named: sharding, recomputation, micro-batch.

The fastest of the settings that fit, by ``planning``; it is printed with its reason, and flags
override it. The rows of a micro-batch are changed, at the same global batch, only where they do not
fit otherwise. Nothing is chosen where the arithmetic is less sure: padded rows, whose length nobody
knows; parts of a model; weights in host memory; and the sharding of what is not LoRA.
"""

from dataclasses import replace

from llama_recipes_local.planning.flags import changes, free_of, words
from llama_recipes_local.planning.search import POLICY, ROWS, SHARDING, Outcome, outcome, ranked
from llama_recipes_local.planning.setting import FULL, OFFLOAD, Setting
from llama_recipes_local.planning.wording import POLICIES
from llama_recipes_local.policies.activation_policy import recomputation_flag
from llama_recipes_local.preflight.memory_rules import asked_setting, this_card
from llama_recipes_local.run import Run

MARGIN = 0.94
"""Share of a device's memory that a choice may need: it is made for a run that nobody watches."""


def automatic(run: Run) -> tuple[dict[str, object], str]:
    """Return the flags that are chosen for a run, and the lines that say why; {} and "" if none."""
    card, asked = this_card(), asked_setting(run)
    if card is None or asked is None or not _is_sure(run, asked):
        return {}, ""
    free = free_of(run.given) & _choosable(run, asked)
    room = replace(card, memory=MARGIN * card.memory)
    best = ranked(asked, room, free - {ROWS})[0]
    if not best.fits and ROWS in free:
        best = ranked(asked, room, free)[0]
    if not best.fits or best.setting == asked:
        return {}, ""
    flags = _flags(run, asked, best)
    return flags, _reason(flags, best, outcome(asked, card)) if flags else ""


def _is_sure(run: Run, asked: Setting) -> bool:
    """Return whether the arithmetic is trusted with a run."""
    train = run.train
    parts = train.top_layers or train.train_only or train.freeze_layers
    other = train.use_peft and train.peft_method != "lora"
    packed = train.batching_strategy == "packing"
    return train.use_fast_kernels and packed and not (parts or other or asked.ranks.cpu_offload)


def _choosable(run: Run, asked: Setting) -> frozenset[str]:
    """Return what may be chosen: the sharding of LoRA, which is saved alike by all strategies."""
    weights = str(getattr(run.peft, "init_lora_weights", ""))
    lora = asked.adapter is not None and not weights.startswith("pissa")
    sharding = run.train.enable_fsdp and lora and not run.train.low_cpu_fsdp
    return frozenset((POLICY, ROWS, SHARDING) if sharding else (POLICY, ROWS))


def _flags(run: Run, asked: Setting, best: Outcome) -> dict[str, object]:
    """Return the flags of a choice; inputs of recomputed layers go where they have room."""
    flags: dict[str, object] = changes(best.setting, asked)
    if flags.get("activation_policy") in (FULL, OFFLOAD):
        del flags["activation_policy"]
        if not asked.recomputes:
            flags[recomputation_flag(run)] = True
    return flags


def _reason(flags: dict[str, object], best: Outcome, asked: Outcome) -> str:
    """Return the lines that say what was chosen and why."""
    world = best.setting.ranks.world
    gpus = f"{world} GPUs" if world > 1 else "this GPU"
    before = f"{asked.tokens:,.0f}" if asked.fits else "what does not fit"
    return (
        f"--> Chosen for {gpus} (explicit flags override it):\n"
        f"      {' '.join(words(flags))}\n"
        f"      {POLICIES[best.setting.policy]}; {best.tokens:,.0f} tok/s are predicted instead of "
        f"{before}, with {best.needs:.1f} of {asked.has:.1f} GiB"
    )
