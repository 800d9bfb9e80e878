"""Adapters: PEFT behind the calls that upstream's ``main`` makes.

``registry`` lists the methods. Where PEFT's own computation does not work in this package's
training (``prefix``, ``llama_adapter``, ``pissa``), this package replaces it behind PEFT's classes.
Everything is saved in PEFT's format and loads in plain PEFT.
"""

from typing import TYPE_CHECKING

from llama_recipes_local._lazy import lazy_names

if TYPE_CHECKING:
    from llama_recipes_local.adapters.attaching import (
        PeftModel,
        generate_peft_config,
        get_peft_model,
    )

__all__ = ["PeftModel", "generate_peft_config", "get_peft_model"]

__getattr__ = lazy_names(__name__, "attaching", __all__)
