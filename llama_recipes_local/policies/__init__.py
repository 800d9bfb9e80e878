"""Upstream's ``policies``; activation checkpointing is ours."""

from typing import Any

from torch import nn

from llama_recipes_local._upstream import fall_back, load

AnyPrecisionAdamW = load("policies.anyprecision_optimizer").AnyPrecisionAdamW


def apply_fsdp_checkpointing(model: nn.Module) -> None:
    """Recompute each decoder layer's activations in the backward pass instead of keeping them.

    ``main`` has enabled transformers' checkpointing just before, so nothing is wrapped a second
    time: it is enabled again with the variant whose inputs need no gradient. Both calls make the
    embeddings' output require one nonetheless. It is detached if they are frozen, because the
    backward pass would go through frozen first layers to reach it.
    """
    transformer: Any = model  # transformers', or PEFT's, which passes these calls on
    transformer.gradient_checkpointing_enable(
        gradient_checkpointing_kwargs={"use_reentrant": False}
    )
    embeddings = transformer.get_input_embeddings()
    if not any(parameter.requires_grad for parameter in embeddings.parameters()):
        embeddings.register_forward_hook(lambda module, inputs, output: output.detach())


__getattr__ = fall_back("policies")
