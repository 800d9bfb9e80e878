"""The adapter configurations: upstream's fields and defaults, and what PEFT knows beside them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_recipes_local._upstream import load

if TYPE_CHECKING:
    from llama_recipes_local._vendor.llama_recipes.configs.peft import (
        llama_adapter_config as _llama_adapter_config,
    )
    from llama_recipes_local._vendor.llama_recipes.configs.peft import (
        lora_config as _lora_config,
    )
    from llama_recipes_local._vendor.llama_recipes.configs.peft import (
        prefix_config as _prefix_config,
    )
else:
    _llama_adapter_config = load("configs.peft").llama_adapter_config
    _lora_config = load("configs.peft").lora_config
    _prefix_config = load("configs.peft").prefix_config


@dataclass
class lora_config(_lora_config):
    """LoRA. Fields that are not listed here are upstream's, with upstream's defaults."""

    bias: str = "none"
    """"none", "all" or "lora_only"; upstream leaves it without a type, so no flag reaches it."""

    use_rslora: bool = False
    """Scale by ``lora_alpha / sqrt(r)`` instead of ``lora_alpha / r`` (rsLoRA, 2312.03732)."""

    use_dora: bool = False
    """Train the weights' magnitude apart from their direction (DoRA, 2402.09353)."""

    init_lora_weights: bool | str = True
    """How A and B begin: true is PEFT's own way, "gaussian" draws A from a normal distribution,
    "pissa" takes both from the weight's largest singular values (PiSSA, 2404.02948), and
    "pissa_niter_16" does that faster, with 16 subspace iterations. All but false, which is for
    tests, leave the model as it was. A PiSSA adapter is saved as a plain one of rank ``2 * r``."""


@dataclass
class llama_adapter_config(_llama_adapter_config):
    """LLaMA-Adapter (2303.16199): prompts in the last layers' attention, behind a gate.

    ``adapter_len`` prompts in each of the last ``adapter_layers`` layers.
    """


@dataclass
class prefix_config(_prefix_config):
    """Prefix tuning (2101.00190): keys and values before every document, in all layers.

    ``num_virtual_tokens`` of them.
    """
