"""What is wrong with a run that makes a LoRA adapter: its layers, its initialisation, DoRA."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from llama_recipes_local.adapters.lora_flags import check_lora_flags, missing_targets
from llama_recipes_local.configs.model_types import VISION
from llama_recipes_local.errors import Problem
from llama_recipes_local.model_folders.architectures import KNOWN
from llama_recipes_local.model_folders.model_config import load_config, read_config
from llama_recipes_local.models.deferred import empty_model
from llama_recipes_local.parallel import device_type
from llama_recipes_local.run import Run
from llama_recipes_local.run.weight_bits import or_unquantized, quantized_bits, quantized_by

if TYPE_CHECKING:
    from llama_recipes_local.adapters.lora import lora_config

DEEPEST = 1_000
"""More layers than any Llama has; a ``config.json`` may say any number."""


def check_lora(run: Run, lora: lora_config, folder: Path) -> list[Problem]:
    """Return what is wrong with a run that makes a LoRA adapter."""
    problems = check_targets(lora.target_modules, folder, "target_modules")
    return problems + check_lora_flags(run, lora) + _check_dora(run, lora)


def check_targets(targets: list[str] | str, folder: Path, flag: str) -> list[Problem]:
    """Compare the layers that LoRA is put on with those of the model in a folder."""
    return missing_targets(targets, linear_layers(folder), flag)


def linear_layers(folder: Path) -> list[str]:
    """Return the layers whose weight is a matrix; none if the model cannot be built.

    They are those of the model that ``config.json`` describes. Other checks report files that are
    not that model's; files of a quantised model use other names. For a vision model, its files tell
    the layers.
    """
    kind = read_config(folder).get("model_type")
    if kind == VISION:
        return _matrices(folder)
    if kind not in KNOWN:  # refused for that
        return []
    try:
        config = load_config(folder, "copy the model again")
        depth, config.num_hidden_layers = min(config.num_hidden_layers, DEEPEST), 1
        weights = empty_model(config).named_parameters()
    except Exception:  # a different one for each field, as check_model reports
        return []
    matrices = [name.removesuffix(".weight") for name, weight in weights if weight.dim() == 2]
    first = "model.layers.0."
    return [
        name.replace(first, f"model.layers.{layer}.")
        for name in matrices
        for layer in range(depth if name.startswith(first) else 1)
    ]


def _matrices(folder: Path) -> list[str]:
    names = []
    for path in sorted(path for path in folder.glob("*.safetensors") if path.is_file()):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    if name.endswith(".weight") and len(file.get_slice(name).get_shape()) == 2:
                        names.append(name.removesuffix(".weight"))
        except (OSError, SafetensorError):
            return []
    return names


def _check_dora(run: Run, lora: lora_config) -> list[Problem]:
    eight_bits_on_cpu = quantized_bits(run.train) == "8bit" and device_type() == "cpu"
    if not lora.use_dora or not eight_bits_on_cpu:
        return []
    return [
        Problem(
            f"--use_dora with {quantized_by(run)} on the CPU",
            "PEFT loses the scales of 8-bit weights on the CPU",
            f"{or_unquantized(run, 'use --quantization 4bit')}, or use a CUDA device",
        )
    ]
