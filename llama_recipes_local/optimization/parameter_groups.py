"""Parameter groups: what is trained, and LoRA+'s higher learning rate for the B matrices."""

from torch import nn
from torch.optim import Optimizer


def trained_parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    """Return the parameters of an optimiser that are trained."""
    groups = optimizer.param_groups
    return [p for group in groups for p in group["params"] if p.requires_grad]


def split_lora_plus(model: nn.Module, optimizer: Optimizer, ratio: float) -> None:
    """Give LoRA's B matrices ``ratio`` times their group's learning rate (LoRA+, 2402.12354).

    ``main`` passes the optimiser parameters without their names, so the groups are split here,
    where the model is known, before the first step. Wrappers and sharding keep the names.

    Args:
        model: the model whose parameters the optimiser has.
        optimizer: before its first step.
        ratio: of B's learning rate to A's; 1, 0 and less change nothing.
    """
    if ratio <= 0 or ratio == 1:
        return
    b_matrices = {id(p) for name, p in model.named_parameters() if "lora_B." in name}
    for group in list(optimizer.param_groups):
        chosen = [p for p in group["params"] if id(p) in b_matrices]
        if not chosen:
            continue
        group["params"] = [p for p in group["params"] if id(p) not in b_matrices]
        settings = {key: value for key, value in group.items() if key != "params"}
        settings.pop("initial_lr", None)
        optimizer.add_param_group(settings | {"params": chosen, "lr": group["lr"] * ratio})
