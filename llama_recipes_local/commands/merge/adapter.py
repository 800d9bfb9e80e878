"""A saved LoRA adapter and its base model, and whether they can be merged."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft

from llama_recipes_local.adapters.registry import method_of_type
from llama_recipes_local.checkpoints.layout import check_converted
from llama_recipes_local.errors import UsageError, door, refusal, refuse
from llama_recipes_local.model_folders.adapter_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    check_no_adapter,
    read_adapter_config,
    unnamed_base,
)
from llama_recipes_local.model_folders.architectures import check_architecture
from llama_recipes_local.model_folders.output_folder import check_output_folder
from llama_recipes_local.model_folders.tensors import StoredTensors, model_tensors
from llama_recipes_local.program import command

# The initialisations that leave the base model's weights unchanged.
HARMLESS_INITS = (True, False, "gaussian", "eva", "orthogonal", "mica")
# What LoRA may do besides changing weights, by the field of its configuration.
BEYOND_WEIGHTS = {
    "layer_replication": "it runs some layers several times, each time with different weights",
    "alora_invocation_tokens": "it changes only what follows those tokens, not the whole text",
    "arrow_config": "it mixes several adapters for each token",
    "monteclora_config": "it has a sampler beside LoRA's matrices",
    "velora_config": "it has projections of activations beside LoRA's matrices",
}


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        folder: the folder that it was saved in.
        config: PEFT's configuration.
        tensors: its tensors, by the names in PEFT's file.
    """

    folder: Path
    config: peft.LoraConfig
    tensors: StoredTensors


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter to merge.

    Raises:
        UsageError: if it is missing, corrupt, or of a kind that cannot be merged.
    """
    settings = read_adapter_config(folder)
    _check_kind(folder, settings)
    with door(f"{folder / ADAPTER_CONFIG} is not a PEFT configuration", "copy the adapter again"):
        config: Any = peft.PeftConfig.from_pretrained(str(folder), local_files_only=True)
    return Adapter(folder, config, StoredTensors([folder / ADAPTER_WEIGHTS]))


@dataclass(frozen=True)
class Inputs:
    """An adapter and the model that it belongs to.

    Attributes:
        adapter: the adapter.
        folder: the base model's folder, absolute.
        stored: the base model's tensors.
    """

    adapter: Adapter
    folder: Path
    stored: StoredTensors


def read_inputs(adapter_folder: Path, base: Path | None, out: Path, flag: str) -> Inputs:
    """Read an adapter and the headers of its base model's weights.

    Args:
        adapter_folder: the adapter's, absolute.
        base: the base model's; None means the one that the adapter names.
        out: the folder that will be written, absolute.
        flag: the flag that names the base model.

    Raises:
        UsageError: if a folder is missing or wrong, or ``out`` is there already.
    """
    adapter = read_adapter(adapter_folder)
    refuse(check_output_folder(out))
    folder = base_folder(base, adapter)
    refuse(check_architecture(folder, flag) or check_converted(folder, flag))
    stored = model_tensors(folder, flag)
    refuse(check_no_adapter(folder))
    return Inputs(adapter, folder, stored)


def base_folder(given: Path | None, adapter: Adapter) -> Path:
    """Return the base model's folder, absolute; the adapter may name one that has moved.

    Raises:
        UsageError: if none is given, and the adapter names none, or one that is not there.
    """
    if given is not None:
        return given.expanduser().resolve()
    name = adapter.config.base_model_name_or_path
    if not name:
        raise UsageError([unnamed_base(adapter.folder, "name its folder: --model DIR")])
    named = Path(name).expanduser().resolve()
    if not (named / "config.json").is_file():
        raise refusal(
            f"the base model is not in {named}",
            f"{adapter.folder} names that folder",
            "name its current folder: --model DIR",
        )
    return named


def use_unmerged(folder: Path) -> str:
    """Return the fix for an adapter that cannot be merged."""
    return f"use it with its base model: {command('generate', '--adapter', folder)}"


def _check_kind(folder: Path, settings: dict[str, Any]) -> None:
    kind = settings["peft_type"]
    unmerged = use_unmerged(folder)
    method = method_of_type(kind)
    if method is None or not method.is_mergeable:
        raise refusal(
            f"--adapter {folder} is of type {kind}, which cannot be merged",
            "only LoRA is merged, whose change is a weight's own",
            unmerged,
        )
    for field, why in BEYOND_WEIGHTS.items():
        if settings.get(field):
            raise refusal(
                f"--adapter {folder} has {field}, which cannot be merged",
                why,
                unmerged,
            )
    init = settings.get("init_lora_weights", True)
    if init not in HARMLESS_INITS:
        raise refusal(
            f"--adapter {folder} was initialised with init_lora_weights={init}",
            "that changed the base model's weights too, and the change is not in the adapter",
            "convert it to plain LoRA first: PEFT's save_pretrained with "
            "path_initial_model_for_weight_conversion",
        )
