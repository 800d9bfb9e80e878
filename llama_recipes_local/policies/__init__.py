"""Upstream's ``policies``; activation checkpointing is ours."""

from typing import Any

from llama_recipes_local._upstream import fall_back, load

AnyPrecisionAdamW = load("policies.anyprecision_optimizer").AnyPrecisionAdamW


def apply_fsdp_checkpointing(model: Any) -> None:
    """Recompute each decoder layer's activations in the backward pass instead of keeping them.

    ``main`` has switched transformers' checkpointing on just before, so nothing is wrapped a second
    time: it is set again with the variant that does not need a gradient on its inputs. Nor do the
    inputs get one then, for the backward pass would go through frozen first layers to find it.
    """
    model.disable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


__getattr__ = fall_back("policies")
