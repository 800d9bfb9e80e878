"""Optimisers and schedules; ``finetuning.main`` imports this module in place of ``torch.optim``."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

__all__ = ["AdamW", "StepLR"]


def AdamW(  # noqa: N802 (the name that main calls)
    params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, **kwargs: Any
) -> torch.optim.AdamW:
    """Return AdamW over the parameters that are trained; fused on CUDA.

    Args:
        params: all parameters of the model.
        lr: learning rate.
        weight_decay: decoupled weight decay.
        **kwargs: further arguments of ``torch.optim.AdamW``.
    """
    trained = [parameter for parameter in params if parameter.requires_grad]
    kwargs.setdefault("fused", all(parameter.is_cuda for parameter in trained))
    return torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay, **kwargs)
