"""Upstream's ``utils.fsdp_utils``, for FSDP2."""

from llama_recipes_local.parallel import fsdp_auto_wrap_policy, hsdp_device_mesh

__all__ = ["fsdp_auto_wrap_policy", "hsdp_device_mesh"]
