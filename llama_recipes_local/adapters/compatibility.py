"""Checks that a saved adapter matches a model: no tensor is missing, and none is unexpected."""

import copy
from collections.abc import Collection
from pathlib import Path

import peft
from safetensors import safe_open
from torch import nn

from llama_recipes_local.errors import Problem
from llama_recipes_local.messages import join_names

PEFT_PREFIX = "base_model.model."
# What PEFT puts into the names of a layer's own parameters when it wraps the layer.
_TRAINED_WHOLE = "modules_to_save."
_WRAPPINGS = ("token_adapter.", "base_layer.", "original_module.")


def base_name(name: str) -> str:
    """Return the name that a parameter of the adapted model has in the base model's files."""
    name = name.removeprefix(PEFT_PREFIX)
    for wrapping in _WRAPPINGS:
        name = name.replace(wrapping, "")
    return name


def is_copy(name: str, there: Collection[str]) -> bool:
    """Return whether a tensor in an adapter's file is a copy of another one in it.

    PEFT writes embeddings that are resized and trained whole (``modules_to_save``) under two names,
    and reads the shorter one.
    """
    return _TRAINED_WHOLE in name and name.replace(_TRAINED_WHOLE, "") in there


def adapt_empty(plain: nn.Module, config: peft.PeftConfig) -> peft.PeftModel:
    """Put an adapter without weights on a model on the meta device.

    Args:
        plain: the model.
        config: the saved adapter's.

    Raises:
        Exception: of any kind, if the configuration is another model's, or corrupt.
    """
    config = copy.deepcopy(config)
    config.inference_mode = True
    config.base_model_name_or_path = None  # PEFT warns where the base has moved
    if isinstance(config, peft.LoraConfig):
        config.init_lora_weights = False
    return peft.get_peft_model(plain, config, low_cpu_mem_usage=True)


def find_mismatch(adapted: peft.PeftModel, plain: Collection[str], weights: Path) -> str:
    """Return in words which tensors of an adapter's file are missing or unexpected, or "".

    PEFT only warns of a missing tensor, and leaves random numbers in its place. It ignores an
    unexpected one.

    Args:
        adapted: the model with the adapter on it, with weights or without.
        plain: the names of the model's parameters before that.
        weights: the adapter's file; only its header is read.
    """
    own = set(peft.get_peft_model_state_dict(adapted, save_embedding_layers=False))
    with safe_open(weights, framework="pt") as file:
        there = set(file.keys())
    # embeddings with rows for new tokens come under their names in the base model
    unknown = {
        name for name in there - own if base_name(name) not in plain and not is_copy(name, own)
    }
    kinds = (("missing", own - there), ("unexpected", unknown))
    found = [f"{kind} tensors: {join_names(sorted(names))}" for kind, names in kinds if names]
    return "; ".join(found)


def mismatch_problem(flag: str, folder: Path, why: str | BaseException) -> Problem:
    """Return the problem with an adapter that does not match the model.

    Args:
        flag: the flag that named the adapter.
        folder: the adapter's.
        why: what ``find_mismatch`` returned, or what PEFT raised.
    """
    return Problem(
        f"{flag} {folder} does not match the base model",
        (str(why).strip().splitlines() or [type(why).__name__])[-1].strip(),
        "name the model that it was trained on, --model_name DIR, or copy the adapter again",
    )
