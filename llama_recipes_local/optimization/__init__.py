"""Optimisers and schedules; ``finetuning.main`` imports this module in place of ``torch.optim``.

``main`` creates torch's ``StepLR``. ``train`` replaces it by the schedule of ``--scheduler``
(``optimization.schedules``), because only ``train`` knows the number of steps.
"""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from llama_recipes_local.optimization.optimizers import make_optimizer
from llama_recipes_local.run import active_run

__all__ = ["AdamW", "StepLR"]


def AdamW(  # noqa: N802 (the name that main calls)
    params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, **kwargs: object
) -> torch.optim.Optimizer:
    """Return the optimiser that ``--optimizer`` names, over the trainable parameters.

    By default, and outside a run, that is fused AdamW.

    Args:
        params: all parameters of the model.
        lr: learning rate.
        weight_decay: decoupled weight decay.
        **kwargs: further arguments of the optimiser's class.
    """
    active = active_run()
    name = active.fsdp.optimizer if active is not None else "AdamW"
    trained = [parameter for parameter in params if parameter.requires_grad]
    return make_optimizer(name, trained, lr, weight_decay, **kwargs)
