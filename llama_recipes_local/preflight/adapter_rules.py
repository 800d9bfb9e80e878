"""New adapters: each method's own settings, and the model that they are for."""

from pathlib import Path
from typing import Any

from llama_recipes_local.adapters.base import AdapterMethod
from llama_recipes_local.adapters.registry import METHODS
from llama_recipes_local.errors import Problem
from llama_recipes_local.preflight.values import ABOVE_0, AT_LEAST_1, Range, choice, out_of_range
from llama_recipes_local.run.resolution import Run

RANGES = {
    "r": AT_LEAST_1,
    "lora_alpha": ABOVE_0,
    "lora_dropout": Range("at least 0 and less than 1", lambda share: 0 <= share < 1),
    "adapter_len": AT_LEAST_1,
    "adapter_layers": AT_LEAST_1,
    "num_virtual_tokens": AT_LEAST_1,
}
CHOICES = {"task_type": ("CAUSAL_LM",), "bias": ("none", "all", "lora_only")}


def check_adapter(run: Run, config: dict[str, Any], folder: Path) -> list[Problem]:
    """Return what is wrong with the adapter that a run makes.

    Args:
        run: the run.
        config: the model's ``config.json``; empty if it cannot be read.
        folder: the model's folder.
    """
    if not run.train.use_peft or run.peft is None or run.train.from_peft_checkpoint:
        return []
    fields = vars(run.peft)
    problems = [
        problem
        for name, choices in CHOICES.items()
        if name in fields
        for problem in choice(name, fields[name], choices)
    ]
    problems += out_of_range(run.peft, {name: RANGES[name] for name in RANGES if name in fields})
    method = METHODS[run.train.peft_method]
    problems += check_attention(run, method, f"--peft_method {method.name}")
    return problems + method.check(run, run.peft, config, folder)


def check_attention(run: Run, method: AdapterMethod[Any], what: str) -> list[Problem]:
    """Find an attention that a method cannot be computed with.

    Args:
        run: the run.
        method: the method.
        what: the flag that named an adapter of that method.
    """
    chosen = run.train.attn_implementation
    if method.attention is None or chosen in ("auto", method.attention):
        return []
    return [
        Problem(
            f"--attn_implementation {chosen} with {what}",
            "that attention knows no prefix before each of a row's documents",
            f"leave it out, or use --attn_implementation {method.attention}",
        )
    ]
