"""Whether a saved adapter fits a model: all its tensors are there, and none is left over."""

import copy
from collections.abc import Collection
from pathlib import Path
from typing import Any

import peft
from safetensors import safe_open

from llama_recipes_local.errors import Problem
from llama_recipes_local.messages import join_names

PREFIX = "base_model.model."
# What PEFT puts into the names of a layer's own parameters when it wraps the layer.
_WRAPPINGS = ("token_adapter.", "base_layer.", "original_module.")
# What PEFT raises of a configuration or tensors that are another model's, or damaged.
UNFIT = (RuntimeError, ValueError, KeyError, TypeError, AttributeError)


def base_name(name: str) -> str:
    """Return the name in the base model's files of a parameter of the adapted model."""
    name = name.removeprefix(PREFIX)
    for wrapping in _WRAPPINGS:
        name = name.replace(wrapping, "")
    return name


def adapted_empty(plain: Any, config: peft.PeftConfig) -> peft.PeftModel:
    """Put an adapter without weights on a model on the meta device, as it was when it was saved.

    Raises:
        Exception: one of ``UNFIT``, if the configuration is not of this model, or damaged.
    """
    config = copy.deepcopy(config)
    config.inference_mode = True
    config.base_model_name_or_path = None  # PEFT warns where the base has moved
    if isinstance(config, peft.LoraConfig):
        config.init_lora_weights = False
    return peft.get_peft_model(plain, config, low_cpu_mem_usage=True)


def misfit(adapted: peft.PeftModel, plain: Collection[str], weights: Path) -> str:
    """Return what an adapter's file lacks, or has left over; nothing if it fits.

    PEFT says no more than a warning of a tensor that is missing, whose place then holds random
    numbers, and nothing of one that is left over.

    Args:
        adapted: the model with the adapter on it, with weights or empty.
        plain: the names of the model's parameters before that.
        weights: the adapter's file, of which the header is read.
    """
    own = set(peft.get_peft_model_state_dict(adapted, save_embedding_layers=False))
    with safe_open(weights, framework="pt") as file:
        there = set(file.keys())
    # embeddings with rows for new tokens come under their names in the base model
    unknown = {name for name in there - own if base_name(name) not in plain}
    for verb, names in (("lacks", own - there), ("holds", unknown)):
        if names:
            return f"it {verb} {join_names(sorted(names))}"
    return ""


def unfit(flag: str, folder: Path, why: str | BaseException) -> Problem:
    """Return the problem with an adapter that was named by a flag and does not fit.

    Args:
        flag: the flag.
        folder: the adapter's.
        why: what ``misfit`` told, or one of ``UNFIT``.
    """
    return Problem(
        f"{flag} {folder} does not fit the base model",
        str(why).strip().splitlines()[-1].strip(),
        "name the model that it was trained on, --model_name DIR, or copy the adapter again",
    )
