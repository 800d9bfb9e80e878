"""``fsdp_config``: upstream's, as it is."""

from llama_recipes_local._upstream import load

fsdp_config = load("configs.fsdp").fsdp_config
