"""What is wrong with a run that is planned; all but its GPUs is ``preflight``'s to say."""

from typing import Any

from llama_recipes_local.adapters.lora_flags import check_lora_flags, missing_targets
from llama_recipes_local.commands.plan.given import Target
from llama_recipes_local.errors import Problem
from llama_recipes_local.planning.shapes import ENDS, LINEAR
from llama_recipes_local.preflight.checks_by_flags import FLAG_CHECKS
from llama_recipes_local.preflight.group_sizes import group_sizes
from llama_recipes_local.run import Run
from llama_recipes_local.run.weight_bits import BEFORE, KEY, packed_bits

BITSANDBYTES = "bitsandbytes"


def check_planned(run: Run, target: Target) -> list[Problem]:
    """Return why a run cannot be started so.

    Args:
        run: with the flags that are chosen for it, and its model.
        target: what it is planned for.
    """
    found = [problem for check in FLAG_CHECKS for problem in check(run)]
    found += [*group_sizes(run, target.world), *_fp8(run, target), *_stored(run, target)]
    if run.train.use_peft and run.train.peft_method == "lora":
        lora: Any = run.peft
        found += check_lora_flags(run, lora)
        found += missing_targets(lora.target_modules, (*LINEAR, *ENDS), "target_modules")
    return list(dict.fromkeys(found))


def check_several(run: Run, world: int) -> list[Problem]:
    """Find FSDP that is switched off where several GPUs train one model."""
    if run.train.enable_fsdp or "enable_fsdp" not in run.given:
        return []
    why, fix = "several GPUs train one model through FSDP", "leave it out, or plan for --gpus 1"
    return [Problem(f"--enable_fsdp False with {world} GPUs", why, fix)]


def _stored(run: Run, target: Target) -> list[Problem]:
    """Find what does not go with weights that the folder has quantised, bitsandbytes' apart."""
    stored = target.config.get(KEY)
    method = str(stored.get("quant_method", BITSANDBYTES)) if isinstance(stored, dict) else ""
    if method in ("", BITSANDBYTES):  # whose bits are the run's own
        return []
    what, found = f"the weights are quantised: {method}", []
    if target.world > 1 and packed_bits(target.config):
        why, fix = "they are read whole, on one device", f"plan for --gpus 1, or {BEFORE}"
        found.append(Problem(f"--gpus {target.world}: {what}", why, fix))
    if not run.train.use_peft:
        why = "quantised weights cannot be trained, only an adapter on them can"
        found.append(Problem(what, why, f"add --use_peft, or {BEFORE}"))
    if run.train.quantization:
        why, fix = "they are not quantised a second time", f"leave --quantization out, or {BEFORE}"
        found.append(Problem(f"--quantization {run.train.quantization}: {what}", why, fix))
    return found


def _fp8(run: Run, target: Target) -> list[Problem]:
    """Find a card that does not multiply in fp8."""
    card = target.card
    if not run.train.fp8 or card.fp8:
        return []
    what, fix = f"--fp8 on {card.name}", "leave --fp8 out"
    if not target.card_is_named:
        what, fix = f"{what}, assumed by its memory", f"name the card with --gpu, or {fix}"
    why = "it needs an NVIDIA GPU of the Hopper generation or later"
    return [Problem(what, why, fix)]
