"""Checks that a model's folder is complete, by what its files say about each other."""

import re
from collections.abc import Iterator
from pathlib import Path

from llama_recipes_local.api.quick_imports import quick_imports
from llama_recipes_local.errors import Problem, UsageError
from llama_recipes_local.model_folders.adapter_files import ADAPTER_CONFIG, check_adapter_files
from llama_recipes_local.model_folders.auxiliary_files import TOKENIZERS, has_tokenizer
from llama_recipes_local.model_folders.weight_files import (
    META,
    PARAMS,
    PICKLED,
    has_weights,
    in_meta_layout,
    missing_shards,
)

_OF_MODELS = ("config.json", PARAMS, ADAPTER_CONFIG, "tokenizer*", "model*.safetensors*")
_USUAL = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
_COPY = "copy it there too"
_ROWS = "layers.0.attention.wq.weight"


def is_model(folder: Path) -> bool:
    """Return whether a folder has a file of a model."""
    return any(any(folder.glob(pattern)) for pattern in (*_OF_MODELS, META, PICKLED))


def check_copy(folder: Path) -> Iterator[Problem]:
    """Yield what is missing in a model's folder, or does not go together."""
    if (folder / ADAPTER_CONFIG).is_file():
        yield from check_adapter_files(folder, "DIR", "copy the adapter's folder again")
        return
    if in_meta_layout(folder):
        yield from _check_meta(folder)
        return
    with quick_imports():  # of torch, which a folder of data does not need
        from llama_recipes_local.models.tokenizer_files import check_tokenizer_files
        from llama_recipes_local.preflight.model import check_model_folder

    for name in missing_shards(folder):
        yield Problem(f"{folder / name} is missing", "the index of the weights names it", _COPY)
    pickled = any(folder.glob(PICKLED)) and not has_weights(folder)
    if not pickled:  # which convert reads
        yield from check_model_folder(folder)
    yield from check_tokenizer_files(folder)


def usual_and_absent(folder: Path) -> list[str]:
    """Return the files that most models have and this one has not; it may do without."""
    if (folder / ADAPTER_CONFIG).is_file() or in_meta_layout(folder):
        return []
    needed = () if has_tokenizer(folder) else TOKENIZERS  # that there is none is reported
    return [name for name in _USUAL if name not in needed and not (folder / name).is_file()]


def _check_meta(folder: Path) -> Iterator[Problem]:
    """Check Meta's own layout, which ``convert`` reads."""
    files = sorted(folder.glob(META))
    if not (folder / PARAMS).is_file():
        yield Problem(f"{folder / PARAMS} is missing", "it has the model's sizes", _COPY)
    if not has_tokenizer(folder):
        why = "convert needs it, or --tokenizer_name DIR"
        yield Problem(f"{folder / 'tokenizer.model'} is missing", why, _COPY)
    if not files:
        yield Problem(f"{folder / 'consolidated.00.pth'} is missing", "it has the weights", _COPY)
        return
    numbers = {int(match[1]) for path in files if (match := re.search(r"\.(\d+)\.", path.name))}
    total = max(max(numbers, default=0) + 1, _number_of_files(folder, files[0]))
    for number in sorted(set(range(total)) - numbers):
        name = f"consolidated.{number:02}.pth"
        yield Problem(f"{folder / name} is missing", f"the model has {total} such files", _COPY)


def _number_of_files(folder: Path, file: Path) -> int:
    """Return over how many files the rows of a matrix are spread; 0 if that is not known."""
    with quick_imports():
        from llama_recipes_local.commands.convert.meta_layout import read_params
        from llama_recipes_local.commands.convert.pickled_weights import read_pickled

    try:
        rows = read_pickled([file])[0][_ROWS].shape[0]
        return read_params(folder).dim // rows
    except (UsageError, KeyError):  # reported for the file itself
        return 0
