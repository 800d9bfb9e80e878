"""Finds every reason why a run cannot work, before any weight is loaded, and reports them all."""

from typing import TYPE_CHECKING

from llama_recipes_local._lazy import lazy_names

if TYPE_CHECKING:
    from llama_recipes_local.preflight.all_problems import preflight, preflight_data

__all__ = ["preflight", "preflight_data"]

__getattr__ = lazy_names(__name__, "all_problems", __all__)
