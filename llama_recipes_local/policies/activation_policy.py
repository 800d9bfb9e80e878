"""What is kept of each layer for the backward pass, as ``--activation_policy`` says.

Whether activations are recomputed at all is a flag of upstream's with FSDP, and
``gradient_checkpointing`` without; the policy sets the flag that applies. With recomputation only
the layers' inputs are kept, on the device or in host memory.
"""

import os
from collections.abc import Collection, Mapping
from typing import Any

from llama_recipes_local import configs
from llama_recipes_local.configs.training import AUTO, FULL, OFFLOAD, RECOMPUTING
from llama_recipes_local.run import Run
from llama_recipes_local.storage.host_memory import available_bytes

SHARE = 0.8
"""How much of the available host memory may be pinned."""


def recomputation_flag(run: Run) -> str:
    """Return the name of the field that says whether a run recomputes activations."""
    return "fsdp_activation_checkpointing" if run.train.enable_fsdp else "gradient_checkpointing"


def recomputes(run: Run) -> bool:
    """Return whether a run recomputes activations."""
    owner = run.fsdp if run.train.enable_fsdp else run.train
    return bool(getattr(owner, recomputation_flag(run)))


def implied_flags(run: Run, written: Collection[str] = ()) -> dict[str, bool]:
    """Return the flag of recomputation that the policy sets; none if it is given itself.

    Args:
        run: the run.
        written: the flags that come from a file of settings; a policy from the command line
            overrides them.
    """
    flag, policy = recomputation_flag(run), run.train.activation_policy
    overridden = flag in written and "activation_policy" not in written
    given = flag in run.given and not overridden
    return {} if policy == AUTO or given else {flag: policy in RECOMPUTING}


def where_inputs_stay(run: Run | None, sizes: Mapping[str, Any], device: str) -> tuple[str, str]:
    """Return ``FULL`` or ``OFFLOAD`` for a run that recomputes activations, and the reason.

    Args:
        run: the run; None without one, in a script or notebook.
        sizes: the model's ``config.json``.
        device: the type of device that is trained on.
    """
    policy = AUTO if run is None else run.train.activation_policy
    if policy == FULL:
        return FULL, f"--activation_policy {policy}"
    if device != "cuda":
        return FULL, "on a CPU, it is in host memory already" if policy == OFFLOAD else ""
    if policy == OFFLOAD:
        return OFFLOAD, f"--activation_policy {policy}"
    if run is None or not run.train.use_fast_kernels:
        return FULL, ""
    if lack := lacking_host_memory(run.train, sizes):
        return FULL, lack
    return OFFLOAD, f"copied while layers are computed; --activation_policy {FULL} does not"


def lacking_host_memory(train: configs.train_config, sizes: Mapping[str, Any]) -> str:
    """Return why the inputs of a model's layers do not fit into host memory; "" if they do.

    Args:
        train: its rows have ``context_length`` tokens at most.
        sizes: the model's ``config.json``.
    """
    layers, hidden = sizes.get("num_hidden_layers"), sizes.get("hidden_size")
    available = available_bytes()
    if not isinstance(layers, int) or not isinstance(hidden, int) or available is None:
        return ""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    element = 4 if train.dtype == "float32" else 2
    row = train.context_length * hidden * element
    needed = layers * train.batch_size_training * row * ranks
    if needed <= SHARE * available:
        return ""
    return (
        f"the inputs of {layers} layers take {needed / 2**30:.1f} GiB of host memory, of which "
        f"{available / 2**30:.1f} GiB are available"
    )
