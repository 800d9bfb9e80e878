"""Keeps less of each layer when a run is out of memory, unless a flag says what is kept."""

from torch import nn

from llama_recipes_local.configs.training import FULL, OFFLOAD, SELECTIVE
from llama_recipes_local.kernels.frozen import remake_norms
from llama_recipes_local.parallel import device_type
from llama_recipes_local.policies import apply_fsdp_checkpointing
from llama_recipes_local.policies.activation_policy import (
    lacking_host_memory,
    recomputation_flag,
    recomputes,
    where_inputs_stay,
)
from llama_recipes_local.run import Run


def lower_policy(run: Run, model: nn.Module) -> str:
    """Apply the next policy that keeps less of a model's layers; return it, "" if there is none.

    Args:
        run: the active one; its policy becomes the one that is returned.
        model: the model, not wrapped.
    """
    policy = _next_policy(run, model)
    if policy:
        run.train.activation_policy = policy
    if policy == FULL:
        remake_norms(model, again=False)
    if policy in (FULL, OFFLOAD):
        owner = run.fsdp if run.train.enable_fsdp else run.train
        setattr(owner, recomputation_flag(run), True)
        apply_fsdp_checkpointing(model)
    return policy


def _next_policy(run: Run, model: nn.Module) -> str:
    if not run.may_change("activation_policy"):
        return ""
    if not recomputes(run):
        if run.train.activation_policy != SELECTIVE and remake_norms(model):
            return SELECTIVE
        # a policy that was chosen has set this flag itself
        free = run.may_change(recomputation_flag(run)) or "activation_policy" in run.chosen
        return FULL if free else ""
    sizes = model.config.get_text_config().to_dict()  # type: ignore[operator, union-attr]
    on_device = where_inputs_stay(run, sizes, device_type())[0] == FULL
    fits = device_type() == "cuda" and not lacking_host_memory(run.train, sizes)
    return OFFLOAD if on_device and fits else ""
