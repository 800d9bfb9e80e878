"""Finds weights that cannot be right whatever their shape: NaN, infinite, or all zero.

A hole in a copied file reads as zeros. A block of each tensor is checked before weights are loaded,
and the whole tensor afterwards.
"""

import math
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open

from llama_recipes_local.errors import Problem
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders.adapter_files import ADAPTER_WEIGHTS
from llama_recipes_local.model_folders.sampled_hash import Place, places
from llama_recipes_local.model_folders.tensors import FLOATS, StoredTensors

SAMPLE = 4096
"""Numbers in the middle of a tensor."""
Found = dict[str, tuple[float, float]]
"""The least and the largest number of each tensor."""
ZERO = (0.0, 0.0)
# a layer that is added to a trained model begins with both of these zero, and changes nothing
_WRITES = re.compile(r"(.*)\.(self_attn\.o_proj|mlp\.down_proj)\.weight")
# new layers before the head begin so; rotary frequencies are not read
_MAY_BE_ZERO = re.compile(r".*(bias|\.top_layers\..*|\.inv_freq)")


def check_sampled(folder: Path, files: Iterable[Path]) -> list[Problem]:
    """Return a problem for weights in files whose sampled numbers are not finite, or all zero.

    Args:
        folder: the model's.
        files: its safetensors files, whose headers were checked.
    """
    found = {}
    for place in places(files):
        if place.dtype in FLOATS and place.begin < place.end:
            found[place.name] = _extremes(_middle(place))
            if found[place.name] == ZERO:  # all of it?
                with safe_open(place.path, framework="pt") as file:
                    found[place.name] = _extremes(file.get_tensor(place.name))
    return _problems(folder, found)


def check_all(folder: Path, tensors: Iterable[tuple[str, torch.Tensor]]) -> list[Problem]:
    """Return a problem for loaded weights that are not finite, or all zero.

    Decoder layers that leave their input unchanged are named too.

    Args:
        folder: where they were loaded from.
        tensors: tensors by name; those packed in 4 or 8 bits are skipped.
    """
    found = _all_extremes(tensors)
    added = _added(found)
    if added:
        names = join_names(sorted(added))
        print(f"--> Layers that change nothing, as new ones do: {names}")
    return _problems(folder, found)


def check_adapter_values(folder: Path) -> list[Problem]:
    """Return a problem for numbers of a saved adapter that are integers or not finite.

    Zeros are normal. PEFT takes integers, which another program has made, without their scale.
    """
    stored = StoredTensors([folder / ADAPTER_WEIGHTS])
    kinds = {name: each.dtype for name, each in stored.headers().items()}
    lora = ((name, dtype) for name, dtype in kinds.items() if ".lora_" in name)
    integers = [
        f"{name} is {dtype}" for name, dtype in lora if dtype.startswith(("I", "U", "BOOL"))
    ]
    if integers:
        fix = "save the adapter in floats, as PEFT does"
        return [Problem(_what(folder), f"not floats: {join_names(integers)}", fix)]
    return _not_finite(folder, _all_extremes(stored.items()))


def _middle(place: Place) -> torch.Tensor:
    dtype = FLOATS[place.dtype]
    return torch.frombuffer(bytearray(place.middle(SAMPLE, dtype.itemsize)), dtype=dtype)


def _all_extremes(tensors: Iterable[tuple[str, torch.Tensor]]) -> Found:
    return {
        name: _extremes(tensor)
        for name, tensor in tensors
        if tensor.dtype in FLOATS.values() and tensor.numel() and not hasattr(tensor, "quant_state")
    }


def _extremes(tensor: torch.Tensor) -> tuple[float, float]:
    """Return the least and the largest number of a tensor; NaN if it has one."""
    low, high = torch.aminmax(tensor.detach())
    return low.item(), high.item()


def _problems(folder: Path, found: Found) -> list[Problem]:
    added = _added(found)
    zero = [
        name
        for name, ends in found.items()
        if ends == ZERO
        and not _MAY_BE_ZERO.fullmatch(name)
        and not ((match := _WRITES.fullmatch(name)) and match[1] in added)
    ]
    problems = _not_finite(folder, found)
    if zero:
        why = f"zero throughout: {join_names(sorted(zero))}"
        fix = "copy the files again, a part of them was not written"
        problems.append(Problem(_what(folder), why, fix))
    return problems


def _not_finite(folder: Path, found: Found) -> list[Problem]:
    names = [name for name, ends in found.items() if not all(map(math.isfinite, ends))]
    if not names:
        return []
    fix = "copy the files again, or take an earlier checkpoint of the run that wrote them"
    return [Problem(_what(folder), f"NaN or infinite numbers: {join_names(sorted(names))}", fix)]


def _what(folder: Path) -> str:
    return f"the weights in {folder} cannot be right"


def _added(found: Found) -> set[str]:
    """Return the decoder layers in which both matrices that write the result are zero."""
    zero = [name for name, ends in found.items() if ends == ZERO]
    layers = [match[1] for name in zero if (match := _WRITES.fullmatch(name))]
    return {layer for layer in layers if layers.count(layer) == 2}
