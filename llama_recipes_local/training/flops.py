"""How many floating-point operations a training step needs, and the peak rate of the device.

Only the operations of the mathematics are counted: recomputation adds nothing, and attention counts
the causal half within each document.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

# dense bfloat16 FLOPS, from the vendors' data sheets; the longest name wins
PEAK_FLOPS = {
    "A100": 312e12,
    "H100": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H200": 989e12,
}


@dataclass(frozen=True)
class TrainingFlops:
    """Operations of a forward and a backward pass.

    Attributes:
        per_token: in the linear layers, for each token.
        per_squared_length: in attention, for each document, times the square of its length.
    """

    per_token: int
    per_squared_length: int

    def of(self, tokens: int, squared_lengths: int) -> int:
        """Return the operations for documents of so many tokens."""
        return self.per_token * tokens + self.per_squared_length * squared_lengths


def training_flops(model: nn.Module) -> TrainingFlops | None:
    """Count what a token and a document cost; None for a multimodal model.

    A weight costs two operations a token forward, two for the gradient of its input, and two for
    its own gradient. The last is needed only if it is trained, the one before only if anything is
    trained up to there: LoRA saves a third, frozen first layers two thirds. A prefix is trained
    before all of it.
    """
    config: Any = getattr(model, "config", None)
    if getattr(config, "vision_config", None) is not None:
        return None
    per_token, per_square = 0, 0
    # modules are met in the order in which they compute, but for a prefix's encoder
    backward = hasattr(model, "prompt_encoder")
    for module in model.modules():
        backward = backward or any(p.requires_grad for p in module.parameters(recurse=False))
        if isinstance(module, nn.Linear):
            passes = 1 + backward + module.weight.requires_grad
            per_token += 2 * passes * module.in_features * module.out_features
        elif hasattr(module, "head_dim") and hasattr(module, "layer_idx"):
            width = _width(module, config)
            trained = backward or any(p.requires_grad for p in module.parameters())
            # scores and values, 2 operations each; backward twice that; half of it is causal
            per_square += 2 * width * (3 if trained else 1)
    return TrainingFlops(per_token, per_square)


def peak_flops(device: torch.device) -> float | None:
    """Return the device's peak dense bfloat16 FLOPS, or None if unknown."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    known = [kind for kind in PEAK_FLOPS if kind in name]
    return PEAK_FLOPS[max(known, key=len)] if known else None


def _width(module: nn.Module, config: PreTrainedConfig) -> int:
    attention: Any = module  # whose attributes torch types as modules or tensors
    return attention.head_dim * getattr(attention, "config", config).num_attention_heads
