"""Upstream's ``policies``; activation checkpointing is this package's own."""

from typing import Any

from torch import nn

from llama_recipes_local import configs
from llama_recipes_local._upstream import fall_back, load
from llama_recipes_local.configs.training import OFFLOAD, SELECTIVE
from llama_recipes_local.kernels.frozen import remake_norms
from llama_recipes_local.parallel import device_type
from llama_recipes_local.policies.activation_policy import where_inputs_stay
from llama_recipes_local.policies.offload import offload_inputs
from llama_recipes_local.run import active_run

AnyPrecisionAdamW = load("policies.anyprecision_optimizer").AnyPrecisionAdamW


def apply_fsdp_checkpointing(model: nn.Module) -> None:
    """Recompute each decoder layer's activations in the backward pass instead of keeping them.

    ``main`` has just enabled transformers' checkpointing, so nothing is wrapped here: it is enabled
    again in its non-reentrant variant, which does not need inputs that require a gradient. Both
    calls make the embeddings' output require one all the same. If the embeddings are frozen, their
    output is detached, because otherwise the backward pass would go through frozen first layers to
    reach them.

    The layers' inputs, which are kept, go to host memory if the active run's policy says so.
    """
    transformer: Any = model  # transformers', or PEFT's, which passes these calls on
    transformer.gradient_checkpointing_enable(
        gradient_checkpointing_kwargs={"use_reentrant": False}
    )
    embeddings = transformer.get_input_embeddings()
    if not any(parameter.requires_grad for parameter in embeddings.parameters()):
        embeddings.register_forward_hook(lambda module, inputs, output: output.detach())
    sizes = transformer.config.get_text_config().to_dict()
    policy, why = where_inputs_stay(active_run(), sizes, device_type())
    if policy == OFFLOAD:
        offload_inputs(model)
    if why:
        place = "in host memory" if policy == OFFLOAD else "on the device"
        print(f"--> Activations: recomputed, from each layer's input {place} ({why})")


def apply_activation_policy(model: nn.Module, train: configs.train_config) -> None:
    """Apply recomputation where ``main`` does not: without FSDP.

    Args:
        model: the model, not wrapped.
        train: its policy says what is kept of each layer.
    """
    if train.gradient_checkpointing and not train.enable_fsdp:
        apply_fsdp_checkpointing(model)
    if train.activation_policy == SELECTIVE:
        number = remake_norms(model)
        print(f"--> Activations: kept, but norms' outputs of {number} layers are made again")


__getattr__ = fall_back("policies")
