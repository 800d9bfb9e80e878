"""Prefix tuning; ``adapters.prefix_tuned`` computes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from llama_recipes_local._upstream import load_alone
from llama_recipes_local.adapters.base import TASK, AdapterMethod
from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import AT_LEAST_1
from llama_recipes_local.kernels import DOCUMENTS
from llama_recipes_local.run import Run

if TYPE_CHECKING:
    import peft

    from llama_recipes_local._vendor.llama_recipes.configs.peft import (
        prefix_config as _prefix_config,
    )
else:
    _prefix_config = load_alone("configs.peft").prefix_config


@dataclass
class prefix_config(_prefix_config):
    """Prefix tuning (2101.00190): keys and values before every document, in all layers."""

    num_virtual_tokens: Annotated[int, AT_LEAST_1] = _prefix_config.num_virtual_tokens
    """Length of the prefix."""

    task_type: Annotated[str, TASK] = _prefix_config.task_type
    """PEFT's name for the task."""


def check(run: Run, prefix: prefix_config, model: dict[str, Any], folder: Path) -> list[Problem]:
    """Return what is wrong with a run that makes a new prefix; see ``AdapterMethod.check``."""
    longest = model.get("max_position_embeddings") or 0
    left = longest - prefix.num_virtual_tokens
    if run.train.batching_strategy != "packing" or not left < run.train.context_length <= longest:
        return []
    return [
        Problem(
            f"--context_length {run.train.context_length} with "
            f"--num_virtual_tokens {prefix.num_virtual_tokens}",
            f"the model has {longest} positions (max_position_embeddings), the prefix's included",
            f"use --context_length {left} or less",
        )
    ]


def install(adapted: peft.PeftModel) -> None:
    """Compute a model's prefix with this package's attention."""
    from llama_recipes_local.adapters.prefix_tuned import install

    install(adapted)


METHOD = AdapterMethod(
    name="prefix",
    title="Prefix tuning",
    config=prefix_config,
    peft_type="PREFIX_TUNING",
    check=check,
    install=install,
    attention=DOCUMENTS,
)
