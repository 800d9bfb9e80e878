"""Reads an exported folder with quantised weights back."""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.datasets.stop_tokens import ends_of_folder
from llama_recipes_local.errors import refuse
from llama_recipes_local.model_folders.auxiliary_files import (
    OTHERS,
    TOKENIZER,
    copy_tokenizer,
    files_of,
)
from llama_recipes_local.model_folders.exported_model import ExportedModel
from llama_recipes_local.model_folders.read_back import ComparedModel, ReadBack, Tolerances
from llama_recipes_local.model_folders.safetensors_header import DTYPES
from llama_recipes_local.model_folders.save import write_config
from llama_recipes_local.model_folders.tensors import StoredTensors
from llama_recipes_local.model_folders.weight_files import INDEX, check_weights, weight_files
from llama_recipes_local.models import AutoConfig, AutoTokenizer
from llama_recipes_local.quantized_folders.llama_layers import LINEAR
from llama_recipes_local.storage.hashing import contents_hash

QUANTISED, KEPT = "quantised", "kept"
"""How a tensor is stored, in ``Tolerances.weights``."""
_OTHERS = ("_name_or_path", "transformers_version")
"""Keys of ``config.json`` that nothing is computed with."""
_GENERATION = "generation_config.json"


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """How a format's folder stores its weights.

    Attributes:
        planned: a meta tensor of each tensor that the format writes.
        dequantised: returns such a weight by its name, from the folder's tensors.
        configuration: ``quantization_config`` of ``config.json``, except ``meta``.
        tolerances: the format's; for weights one for ``QUANTISED`` and one for ``KEPT``.
    """

    planned: Mapping[str, torch.Tensor]
    dequantised: Callable[[StoredTensors, str], torch.Tensor]
    configuration: Mapping[str, object]
    tolerances: Tolerances


def copied_tokenizer(model: ExportedModel) -> PreTrainedTokenizerBase:
    """Return the tokenizer as it is read from the files that an export copies."""
    with tempfile.TemporaryDirectory() as folder:
        write_config(model.source, Path(folder), **model.config_changes)
        copy_tokenizer(model.tokenizer, Path(folder))
        return AutoTokenizer.from_pretrained(folder)


def read_folder_back(model: ExportedModel, folder: Path, form: Quantised) -> ReadBack:
    """Return the model in an exported folder together with the exported one."""
    refuse(check_weights(folder))
    stored = StoredTensors(weight_files(folder))
    quantised = set(filter(LINEAR.fullmatch, model.weights))

    def weight(name: str) -> torch.Tensor:
        return form.dequantised(stored, name) if name in quantised else stored[name]

    changes = {**model.config_changes, "quantization_config": form.configuration}
    return ReadBack(
        original=_compared(model.source, model.tokenizer, model.weight, changes),
        exported=_compared(folder, folder, weight, {}, _unplanned(folder, stored, form.planned)),
        names=model.weights.keys(),
        numbers=sum(math.prod(each.shape) for each in model.weights.values()),
        kind=lambda name: QUANTISED if name in quantised else KEPT,
        tolerances=form.tolerances,
        files=weight_files(folder),
    )


def _unplanned(
    folder: Path, stored: StoredTensors, planned: Mapping[str, torch.Tensor]
) -> list[str]:
    """Return the tensors and files of a folder that the export does not write so."""
    kinds = {name: (each.shape, DTYPES[each.dtype]) for name, each in planned.items()}
    tensors = [name for name, each in stored.headers().items() if each != kinds.get(name)]
    weights = [path.name for path in weight_files(folder)]
    known = ["config.json", *TOKENIZER, *OTHERS, *weights, *([INDEX] if len(weights) > 1 else [])]
    there = sorted(files_of(folder, ["**/*"]))
    return tensors + [name for name in there if not any(fnmatch(name, each) for each in known)]


def _copied_files(folder: Path, tokenizer: Path) -> dict[str, str]:
    """Return the hashes of files that are copied, but of what is written beside a lone model."""
    of_tokenizer = files_of(tokenizer, TOKENIZER)
    found = of_tokenizer | files_of(folder, [_GENERATION])
    if of_tokenizer.keys() == {"tokenizer.model", "tokenizer_config.json"}:
        del found["tokenizer_config.json"]  # the tokens are compared
    return {f"the file {name}": contents_hash(path) for name, path in found.items()}


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
    settings |= _copied_files(folder, tokenizer_folder)
    settings["tensors and files that are not the export's"] = list(unknown)
    return ComparedModel(
        config=config,
        settings=settings | {"chat_template": tokenizer.chat_template},
        tokenizer=tokenizer,
        ends=ends_of_folder(folder),
        weight=weight,
    )
