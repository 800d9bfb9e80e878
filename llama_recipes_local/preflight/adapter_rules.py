"""Rules for new adapters: each method's own settings, and the models that they work on."""

from pathlib import Path
from typing import Any

from llama_recipes_local.adapters.base import AdapterMethod
from llama_recipes_local.adapters.registry import METHODS
from llama_recipes_local.errors import Problem
from llama_recipes_local.preflight.model_sizes import model_config
from llama_recipes_local.run import Run


def check_adapter(run: Run) -> list[Problem]:
    """Return what is wrong with the new adapter of a run, as far as its method says."""
    train = run.train
    if not train.use_peft or run.peft is None or train.from_peft_checkpoint:
        return []
    method = METHODS[train.peft_method]
    problems = check_attention(run, method, f"--peft_method {method.name}")
    folder = Path(train.model_name).resolve()
    return problems + method.check(run, run.peft, model_config(run), folder)


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
            f"{method.title} is computed by the attention {method.attention!r} only",
            f"leave it out, or use --attn_implementation {method.attention}",
        )
    ]
