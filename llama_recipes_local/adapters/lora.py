"""LoRA and its variants: rsLoRA, DoRA, and PiSSA (``adapters.pissa``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from llama_recipes_local._upstream import load_alone
from llama_recipes_local.adapters.base import TASK, AdapterMethod
from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import ABOVE_0, AT_LEAST_1, TEXT, Choices, Range
from llama_recipes_local.run import Run

if TYPE_CHECKING:
    import peft

    from llama_recipes_local._vendor.llama_recipes.configs.peft import lora_config as _lora_config
else:
    _lora_config = load_alone("configs.peft").lora_config


@dataclass
class lora_config(_lora_config):
    """LoRA (2106.09685)."""

    r: Annotated[int, AT_LEAST_1] = _lora_config.r
    """Rank of LoRA's matrices."""

    lora_alpha: Annotated[int, ABOVE_0] = _lora_config.lora_alpha
    """LoRA's update is multiplied by ``lora_alpha / r``."""

    target_modules: Annotated[list[str], TEXT] = field(
        default_factory=lambda: _lora_config().target_modules
    )
    """Layers that get LoRA, by their last names, or "all-linear"."""

    task_type: Annotated[str, TASK] = _lora_config.task_type
    """PEFT's name for the task."""

    lora_dropout: Annotated[
        float, Range("at least 0 and less than 1", lambda share: 0 <= share < 1)
    ] = _lora_config.lora_dropout
    """Share of LoRA's inputs that are dropped in training."""

    inference_mode: bool = _lora_config.inference_mode
    """PEFT's switch for an adapter that is not trained."""

    # upstream leaves it without a type, so no flag reaches it
    bias: Annotated[str, Choices("none", "all", "lora_only")] = "none"
    """Which biases of the model are trained too: "none", "all" or "lora_only"."""

    use_rslora: bool = False
    """Scale by ``lora_alpha / sqrt(r)`` instead of ``lora_alpha / r`` (rsLoRA, 2312.03732)."""

    use_dora: bool = False
    """Train the weights' magnitude apart from their direction (DoRA, 2402.09353)."""

    init_lora_weights: Annotated[bool | str, TEXT] = True
    """How A and B are initialised: true is PEFT's default, "gaussian" draws A from a normal
    distribution, "pissa" takes both from the weight's largest singular values (PiSSA, 2404.02948),
    and "pissa_niter_16" does that faster, with 16 subspace iterations. All but false, which is for
    tests, leave the model's outputs unchanged. A PiSSA adapter is saved as a plain one of rank
    ``2 * r``."""


def check(run: Run, lora: lora_config, model: dict[str, Any], folder: Path) -> list[Problem]:
    """Return what is wrong with a run that makes a LoRA adapter; see ``AdapterMethod.check``."""
    from llama_recipes_local.adapters.lora_checks import check_lora

    return check_lora(run, lora, folder)


def prepare(adapted: peft.PeftModel) -> None:
    """Prepare a PiSSA adapter; see ``adapters.pissa``."""
    from llama_recipes_local.adapters import pissa

    pissa.prepare(adapted)


def reads_weights(lora: lora_config) -> list[str]:
    """Return the flags that initialise the adapter from the model's weights."""
    flags = {
        "--use_dora": lora.use_dora,
        "--init_lora_weights pissa": str(lora.init_lora_weights).startswith("pissa"),
    }
    return [flag for flag, given in flags.items() if given]


METHOD = AdapterMethod(
    name="lora",
    title="LoRA",
    config=lora_config,
    peft_type="LORA",
    check=check,
    prepare=prepare,
    reads_weights=reads_weights,
    supports_vision=True,
    is_mergeable=True,
)
