"""``fsdp_config``: upstream's, as it is."""

from typing import TYPE_CHECKING

from llama_recipes_local._upstream import load

if TYPE_CHECKING:
    from llama_recipes_local._vendor.llama_recipes.configs.fsdp import fsdp_config
else:
    fsdp_config = load("configs.fsdp").fsdp_config

__all__ = ["fsdp_config"]
