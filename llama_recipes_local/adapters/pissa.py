"""PiSSA: adapters that start as the weights' principal components, saved as plain LoRA.

PEFT subtracts the principal components from the base weights. An adapter saved as it is would need
those changed weights; what is saved here is the difference to the initial factors, of rank
``2 * r`` (2404.02948, appendix C), which plain PEFT puts on the unchanged model.
"""

import copy
from typing import Any

import peft
import torch

from llama_recipes_local.library_patches import PISSA
from llama_recipes_local.parallel import broadcast

Tensors = dict[str, torch.Tensor]
FACTORS = (".lora_A.", ".lora_B.")


def is_pissa(config: peft.PeftConfig) -> bool:
    """Return whether adapters are initialised by PiSSA."""
    return str(getattr(config, "init_lora_weights", "")).startswith("pissa")


def prepare(adapted: peft.PeftModel) -> None:
    """Keep the initial factors of a PiSSA adapter; other adapters are not changed.

    All ranks use the decomposition of rank 0, because the signs of singular vectors may differ
    between machines.
    """
    if not is_pissa(adapted.active_peft_config):
        return
    for module in adapted.modules():
        if isinstance(module, peft.tuners.lora.Linear):
            base: Any = module.get_base_layer()
            broadcast(base.weight.data)
    factors: Any = {}
    for name, parameter in adapted.named_parameters():
        if any(factor in name for factor in FACTORS):
            broadcast(parameter.data)
            factors[name] = parameter.detach().cpu().clone()
    PISSA.check()
    adapted.__class__ = PissaModel
    adapted.first_factors = factors


class PissaModel(peft.PeftModelForCausalLM):
    """A causal language model with a PiSSA adapter to train."""

    first_factors: Tensors

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str, state_dict: Tensors | None = None, **kwargs: Any
    ) -> None:
        """Save a plain adapter of twice the rank, which adds ``B A - B0 A0``."""
        state = dict(state_dict or self.state_dict())
        for name, first in self.first_factors.items():
            own = state[name].cpu()
            of_a = FACTORS[0] in name
            state[name] = torch.cat([own, first]) if of_a else torch.cat([own, -first], dim=1)
        trained = self.peft_config["default"]
        assert isinstance(trained, peft.LoraConfig)
        self.peft_config["default"] = _plain(trained)
        try:
            super().save_pretrained(save_directory, state_dict=state, **kwargs)
        finally:
            self.peft_config["default"] = trained


def _plain(config: peft.LoraConfig) -> peft.LoraConfig:
    """Return the configuration of an adapter of twice the rank with the same scale."""
    plain = copy.deepcopy(config)
    plain.r = 2 * config.r
    # keeps the scale, alpha / r and with rsLoRA alpha / sqrt(r); PEFT calculates with a float too
    scale: Any = 2**0.5 if config.use_rslora else 2
    plain.lora_alpha = config.lora_alpha * scale
    plain.init_lora_weights = True
    return plain
