"""Reads an exported folder with quantised weights back."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llama_recipes_local.datasets.stop_tokens import ends_of_folder
from llama_recipes_local.errors import refuse
from llama_recipes_local.model_folders import StoredTensors, check_weights, weight_files
from llama_recipes_local.model_folders.exported_model import ExportedModel
from llama_recipes_local.model_folders.read_back import ComparedModel, ReadBack, Tolerances
from llama_recipes_local.models import AutoConfig, AutoTokenizer
from llama_recipes_local.quantized_folders.llama_layers import LINEAR

QUANTISED, KEPT = "quantised", "kept"
"""How a tensor is stored, in ``Tolerances.weights``."""
_OTHERS = ("_name_or_path", "dtype", "torch_dtype", "transformers_version")
"""Keys of ``config.json`` that nothing is computed with."""


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """How a format's folder stores its weights.

    Attributes:
        parts: the tensors of a quantised weight, by what replaces ``weight`` in their names.
        dequantised: returns such a weight by its name, from the folder's tensors.
        configuration: ``quantization_config`` of ``config.json``, except ``meta``.
        tolerances: the format's; for weights one for ``QUANTISED`` and one for ``KEPT``.
    """

    parts: Collection[str]
    dequantised: Callable[[StoredTensors, str], torch.Tensor]
    configuration: Mapping[str, object]
    tolerances: Tolerances


def read_folder_back(model: ExportedModel, folder: Path, form: Quantised) -> ReadBack:
    """Return the model in an exported folder together with the exported one."""
    refuse(check_weights(folder))
    stored = StoredTensors(weight_files(folder))
    quantised = set(filter(LINEAR.fullmatch, model.weights))
    planned = model.weights.keys() - quantised
    planned |= {name.removesuffix("weight") + part for name in quantised for part in form.parts}

    def weight(name: str) -> torch.Tensor:
        return form.dequantised(stored, name) if name in quantised else stored[name]

    changes = {**model.config_changes, "quantization_config": form.configuration}
    return ReadBack(
        original=_compared(model.source, model.tokenizer, model.weight, changes),
        exported=_compared(folder, folder, weight, {}, sorted(stored.keys() - planned)),
        names=model.weights.keys(),
        numbers=sum(math.prod(each.shape) for each in model.weights.values()),
        kind=lambda name: QUANTISED if name in quantised else KEPT,
        tolerances=form.tolerances,
        files=weight_files(folder),
    )


def _compared(
    folder: Path,
    tokenizer_folder: Path,
    weight: Callable[[str], torch.Tensor],
    changes: Mapping[str, Any],
    unknown: Sequence[str] = (),
) -> ComparedModel:
    config: Any = AutoConfig.from_pretrained(folder)
    for name, value in changes.items():
        setattr(config, name, value)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    settings = {key: value for key, value in config.to_dict().items() if key not in _OTHERS}
    quantised = settings.pop("quantization_config", None) or {}
    config.quantization_config = None  # it is computed with dequantised weights
    quantised.pop("meta", None)
    settings |= {f"quantization_config.{key}": value for key, value in quantised.items()}
    settings["tensors that the model has not"] = list(unknown)
    return ComparedModel(
        config=config,
        settings=settings | {"chat_template": tokenizer.chat_template},
        tokenizer=tokenizer,
        ends=ends_of_folder(folder),
        weight=weight,
    )
