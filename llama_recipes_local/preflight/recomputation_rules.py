"""Rules for what is kept of each layer, as far as kernels and host memory limit it."""

from llama_recipes_local.configs.training import FULL, OFFLOAD, SELECTIVE
from llama_recipes_local.errors import Problem
from llama_recipes_local.kernels import frozen
from llama_recipes_local.parallel import device_type
from llama_recipes_local.policies.activation_policy import lacking_host_memory
from llama_recipes_local.preflight.loop_rules import check_selective
from llama_recipes_local.preflight.model_sizes import model_config
from llama_recipes_local.run import Run


def check_selective_kernels(run: Run) -> list[Problem]:
    """Find a machine without the kernels that recompute the norms' outputs."""
    lack = frozen.KERNEL.unavailable() if run.train.activation_policy == SELECTIVE else ""
    if not lack or check_selective(run):
        return []
    why, fix = f"it needs this package's kernels: {lack}", f"use --activation_policy {FULL}"
    return [Problem(f"--activation_policy {SELECTIVE}", why, fix)]


def check_host_memory(run: Run) -> list[Problem]:
    """Find inputs of layers that do not fit into host memory, where they were asked to be."""
    if run.train.activation_policy != OFFLOAD or device_type() != "cuda":
        return []
    lack = lacking_host_memory(run.train, model_config(run))
    if not lack:
        return []
    fix = "use --activation_policy full, or fewer tokens in a row: --context_length N"
    return [Problem("--activation_policy offload", lack, fix)]
