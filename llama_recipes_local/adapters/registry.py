"""The adapter methods: one line each. What enumerates methods reads this list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_recipes_local.adapters import llama_adapter, lora, prefix
from llama_recipes_local.adapters.base import AdapterMethod
from llama_recipes_local.configs.protocols import AdapterConfig

if TYPE_CHECKING:
    import peft

METHODS: dict[str, AdapterMethod[Any]] = {
    method.name: method
    for method in (
        lora.METHOD,
        llama_adapter.METHOD,
        prefix.METHOD,
    )
}


def config_classes() -> dict[str, type[AdapterConfig]]:
    """Return the configuration class of each method by the method's name."""
    return {name: method.config for name, method in METHODS.items()}


def method_of_type(peft_type: str) -> AdapterMethod[Any] | None:
    """Return the method that PEFT calls ``peft_type``; None if it is not one of ``METHODS``."""
    return next((each for each in METHODS.values() if each.peft_type == peft_type), None)


def method_of(adapted: peft.PeftModel) -> AdapterMethod[Any] | None:
    """Return the method of the adapter on a model; None if it is not one of ``METHODS``."""
    peft_type = adapted.active_peft_config.peft_type
    return method_of_type(getattr(peft_type, "value", peft_type))
