"""Checks by headers that a model's files hold the model that its ``config.json`` describes.

transformers fills missing tensors with random numbers, ignores tensors that it does not know, and
attaches an adapter that lies in the folder. It reports all three only in its log.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from llama_recipes_local.errors import Problem, UsageError, caught, door
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders.adapter_files import check_no_adapter
from llama_recipes_local.model_folders.model_config import load_config, read_config
from llama_recipes_local.model_folders.stored_quantization import (
    StoredQuantization,
    check_readable,
    stored_quantization,
)
from llama_recipes_local.model_folders.tensors import (
    FLOATS,
    Header,
    StoredTensors,
    shape_mismatches,
)
from llama_recipes_local.model_folders.weight_files import check_weights, weight_files
from llama_recipes_local.models.deferred import empty_model, weight_name
from llama_recipes_local.models.weight_values import check_sampled

_AGAIN = "copy the model again, with its config.json"
# rotary frequencies, which transformers before 4.32 saved and the configuration gives
HARMLESS = re.compile(r"(.*\.)?rotary_emb\.inv_freq")


def check_stored_model(folder: Path) -> list[Problem]:
    """Return how the text model in a folder differs from what its configuration says.

    Args:
        folder: a folder with a ``config.json``; nothing is compared if that cannot be read.
    """
    problems = check_no_adapter(folder) + check_weights(folder)
    quantized = stored_quantization(folder, read_config(folder))
    if quantized is not None:
        problems += check_readable(quantized)
        if quantized.method is None:
            return problems
    try:
        config = load_config(folder, _AGAIN)
    except UsageError as error:
        return error.problems + problems
    if problems or not hasattr(config, "vocab_size"):  # a vision model's names differ
        return problems
    files = weight_files(folder)
    stored = StoredTensors(files)
    return (
        _check_depth(folder, config, stored)
        or compare(folder, config, stored, stored.headers(), quantized)
        or check_sampled(folder, files)
    )


def _check_depth(
    folder: Path, config: transformers.PreTrainedConfig, stored: Mapping[str, object]
) -> list[Problem]:
    """Compare the numbers of layers before a model is built, which takes long for a huge number."""
    numbers = (re.match(r"model\.layers\.(\d+)\.", name) for name in stored)
    there = len({int(match[1]) for match in numbers if match})
    if config.num_hidden_layers == there:
        return []
    why = f"config.json has num_hidden_layers {config.num_hidden_layers}, the files {there} layers"
    return [_mismatch(folder, why)]


def compare(
    folder: Path,
    config: Any,
    stored: Mapping[str, torch.Tensor],
    found: Mapping[str, Header],
    quantized: StoredQuantization | None = None,
) -> list[Problem]:
    """Return how a folder's tensors differ from the model that its configuration describes.

    Args:
        folder: the folder.
        config: the configuration.
        stored: the folder's tensors; only a head and an embedding are read, if at all.
        found: their shapes and dtypes.
        quantized: how the tensors are quantised; None if they are not.
    """
    with (
        caught() as problems,
        door(f"{folder / 'config.json'} describes a model that cannot be built", _AGAIN),
    ):
        plain = empty_model(config)
        frequencies = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
        if not torch.isfinite(frequencies.inv_freq).all():
            raise ValueError("its rotary frequencies are not finite")
    if problems:
        return problems
    if quantized is not None and all(each.dtype in FLOATS for each in found.values()):
        fix = "remove quantization_config from config.json, or copy the quantised weights again"
        return [_mismatch(folder, f"{quantized.what}, but all tensors are plain floats", fix)]
    shapes = {name: each.shape for name, each in plain.named_parameters()}
    head = weight_name(plain, plain.get_output_embeddings())
    embedding = weight_name(plain, plain.get_input_embeddings())
    optional = {head} if config.tie_word_embeddings else set()
    differences = _unquantized(found, quantized) or _differences(found, shapes, optional, quantized)
    problems = [_mismatch(folder, "; ".join(differences))] if differences else []
    if not problems and optional & found.keys():
        problems += _check_tied(folder, stored, head, embedding)
    return problems


def _unquantized(found: Mapping[str, Header], quantized: StoredQuantization | None) -> list[str]:
    """Describe weights that are floats, although the configuration calls them quantised."""
    if quantized is None or any(each.dtype not in FLOATS for each in found.values()):
        return []
    return [f"it has a quantization_config ({quantized.name}), and all tensors are floats"]


def _differences(
    found: Mapping[str, Header],
    shapes: Mapping[str, torch.Size],
    optional: set[str],
    quantized: StoredQuantization | None,
) -> list[str]:
    """Describe the tensors that are missing, unexpected, or of another shape or dtype."""
    method = quantized.method if quantized is not None else None
    packed: set[str] = set()
    beside: set[str] = set()
    if method is not None:
        layers = {name.removesuffix("weight") for name in shapes if name.endswith(".weight")}
        packed = {f"{layer}weight" for layer in layers if layer + method.replaces in found}
        beside = {layer + part for layer in layers for part in (*method.beside, method.replaces)}
    missing = [name for name in shapes if name not in {*found, *packed, *optional}]
    left = [
        name for name in found if name not in {*shapes, *beside} and not HARMLESS.fullmatch(name)
    ]
    plain = {name: each for name, each in found.items() if name in shapes}
    whole = {name: each for name, each in plain.items() if each.dtype in FLOATS or not method}
    wrong = shape_mismatches({name: each.shape for name, each in whole.items()}, shapes)
    wrong += _packed_mismatches(plain, shapes) if method else []
    integers = [
        f"{name} is {each.dtype}" for name, each in whole.items() if each.dtype not in FLOATS
    ]
    return [
        f"{kind}: {join_names(names)}"
        for kind, names in (
            ("missing", missing),
            ("left over", left),
            ("shape mismatch", wrong),
            ("neither floats nor quantised by a quantization_config", integers),
        )
        if names
    ]


def _packed_mismatches(found: Mapping[str, Header], shapes: Mapping[str, torch.Size]) -> list[str]:
    """Describe quantised weights with a wrong number of elements: one or two are in a byte."""
    return [
        f"{name} of shape {tuple(each.shape)} for {tuple(shapes[name])}"
        for name, each in found.items()
        if each.dtype not in FLOATS
        and each.shape != shapes[name]
        and not (each.dtype == "U8" and math.prod(each.shape) * 2 == math.prod(shapes[name]))
    ]


def _check_tied(
    folder: Path, stored: Mapping[str, torch.Tensor], head: str, embedding: str
) -> list[Problem]:
    """Compare a head with the embedding that it should equal; both are read."""
    if torch.equal(stored[head], stored[embedding]):
        return []
    why = f"tie_word_embeddings is on, and {head} and {embedding} have different values"
    return [_mismatch(folder, why, 'set "tie_word_embeddings": false in config.json')]


def _mismatch(folder: Path, why: str, fix: str = _AGAIN) -> Problem:
    return Problem(f"the weights in {folder} do not match its config.json", why, fix)


def check_loaded(folder: Path, report: Mapping[str, Any], new: str = "") -> list[Problem]:
    """Return a problem if transformers did not find all tensors, or ignored one.

    Args:
        folder: the model's folder.
        report: what ``from_pretrained`` returns with ``output_loading_info``.
        new: prefix of the names that may be missing from the files.
    """
    missing = [name for name in report["missing_keys"] if not (new and name.startswith(new))]
    left = [name for name in report["unexpected_keys"] if not HARMLESS.fullmatch(name)]
    wrong = [str(each[0]) for each in report["mismatched_keys"]]
    kinds = {"missing": missing, "left over": left, "shape mismatch": wrong}
    why = [f"{kind}: {join_names(sorted(names))}" for kind, names in kinds.items() if names]
    return [_mismatch(folder, "; ".join(why))] if why else []
