"""Reads a folder back that was exported with quantised weights."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llama_recipes_local.datasets.stop_tokens import ends_of_folder
from llama_recipes_local.model_folders import StoredTensors, weight_files
from llama_recipes_local.model_folders.exported_model import ExportedModel
from llama_recipes_local.model_folders.read_back import ComparedModel, ReadBack, Tolerances
from llama_recipes_local.models import AutoConfig, AutoTokenizer

QUANTISED, KEPT = "quantised", "kept"
"""How a tensor is stored, in ``Tolerances.weights``."""
_OTHERS = ("quantization_config", "_name_or_path", "dtype", "torch_dtype", "transformers_version")
"""Keys of ``config.json`` that nothing is computed with."""


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """How a format's folder holds its weights.

    Attributes:
        beside: what the name of a weight is followed by in that of a tensor which it has only if
            it is quantised.
        dequantised: returns such a weight from the folder's tensors, by its name.
        tolerances: of the format; of weights one for ``QUANTISED`` and one for ``KEPT``.
    """

    beside: str
    dequantised: Callable[[StoredTensors, str], torch.Tensor]
    tolerances: Tolerances


def read_folder_back(model: ExportedModel, folder: Path, form: Quantised) -> ReadBack:
    """Return what an exported folder says, beside the model that it was made of."""
    stored = StoredTensors(weight_files(folder))
    quantised = {
        name for name in model.weights if name.removesuffix("weight") + form.beside in stored
    }

    def weight(name: str) -> torch.Tensor:
        return form.dequantised(stored, name) if name in quantised else stored[name]

    return ReadBack(
        original=_compared(model.source, model.tokenizer, model.weight, model.config_changes),
        exported=_compared(folder, folder, weight, {}),
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
) -> ComparedModel:
    config: Any = AutoConfig.from_pretrained(folder)
    for name, value in changes.items():
        setattr(config, name, value)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    settings = {key: value for key, value in config.to_dict().items() if key not in _OTHERS}
    return ComparedModel(
        config=config,
        settings=settings | {"chat_template": tokenizer.chat_template},
        tokenizer=tokenizer,
        ends=ends_of_folder(folder),
        weight=weight,
    )
