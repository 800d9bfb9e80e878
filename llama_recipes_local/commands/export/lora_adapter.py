"""Exports an adapter by itself, as a LoRA in GGUF: llama.cpp adds it to its base model's file."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer

from llama_recipes_local.adapters.compatibility import PEFT_PREFIX, base_name
from llama_recipes_local.adapters.unread_keys import unread_keys
from llama_recipes_local.commands.merge.adapter import Adapter, read_inputs
from llama_recipes_local.commands.merge.skeleton import Skeleton
from llama_recipes_local.datasets.prompt_template import find_prompt_template
from llama_recipes_local.errors import Problem, UsageError, refusal, refuse
from llama_recipes_local.gguf_files.lora_file import LoraPair, write_lora
from llama_recipes_local.gguf_files.shape import Shape, shape_of, unwritable
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders.base_record import compare_base
from llama_recipes_local.model_folders.output_folder import check_free_space
from llama_recipes_local.models import AutoConfig
from llama_recipes_local.models.weight_values import check_adapter_values
from llama_recipes_local.program import command
from llama_recipes_local.storage.publishing import published_folder

_PAIRS = {"lora_A.weight": "lora_B.weight", "lora_embedding_A": "lora_embedding_B"}
_OTHERS = {
    "lora_magnitude_vector": "DoRA's magnitudes",
    "token_adapter": "rows of single tokens",
    "bias": "biases",
}


def export_lora(
    adapter_folder: Path,
    base: Path | None,
    out: Path,
    custody: Callable[[Path], Callable[[Path], None]],
    allow_other_base: bool = False,
) -> Path:
    """Write a new folder with the file; return the base model's.

    Args:
        adapter_folder: the adapter's, absolute.
        base: the base model's; None means the one that the adapter names.
        out: the new folder, absolute.
        custody: returns what writes the manifest into the new folder, for the base model's.
        allow_other_base: whether the base may be another than the adapter was trained on.

    Raises:
        UsageError: if an input is missing or wrong, or the adapter does more than a LoRA in GGUF
            can; nothing is written then.
    """
    inputs = read_inputs(adapter_folder, base, out, "--model_name")
    adapter, folder, stored = inputs.adapter, inputs.folder, inputs.stored
    config = AutoConfig.from_pretrained(folder)
    refuse(unwritable(config, f"the model in {folder}"))
    refuse(_check_beyond(adapter, stored))
    skeleton = Skeleton(config, adapter, stored)
    shape = shape_of(config, tied="lm_head.weight" not in stored)
    pairs = _pairs(skeleton, adapter)
    compared = compare_base(adapter.folder, folder, "--model_name", allow_other_base)
    refuse(
        _check_tied(pairs, shape, adapter)
        + check_adapter_values(adapter.folder)
        + compared.problems
        + check_free_space(out, 4 * adapter.tensors.numel())
    )
    template = find_prompt_template(adapter.folder)
    lines = [f"--> exporting {adapter.folder}, for {folder}"]
    lines += [f"    {compared.note}"] if compared.note else []
    print("\n".join([*lines, *unread_keys(folder, adapter.folder)]))
    beside, name = custody(folder), adapter.folder.name
    with published_folder(out) as draft:
        write_lora(draft / f"{name or 'adapter'}-lora.gguf", name, shape, pairs)
        if template is not None:
            shutil.copyfile(template, draft / template.name)
        beside(draft)
    return folder


def _pairs(skeleton: Skeleton, adapter: Adapter) -> dict[str, LoraPair]:
    """Return LoRA's A and B for each weight that it changes.

    Raises:
        UsageError: if a layer computes something else from them.
    """
    found: dict[str, LoraPair] = {}
    for key in adapter.tensors:
        first = next((name for name in _PAIRS if key.endswith(name)), None)
        if first is None:
            continue
        path = key.removeprefix(PEFT_PREFIX).removesuffix(f".{first}")
        layer = skeleton.layer(path)
        if not isinstance(layer, LoraLayer) or layer.lora_variant:
            raise _more(adapter, [f"another computation in {path}"])
        found[f"{path}.weight"] = LoraPair(
            down=partial(_float, adapter, key),
            up=partial(_float, adapter, key.removesuffix(first) + _PAIRS[first]),
            rank=layer.r["default"],
            scale=layer.scaling["default"],
        )
    return found


def _float(adapter: Adapter, key: str) -> torch.Tensor:
    return adapter.tensors[key].float()


def _check_beyond(adapter: Adapter, stored: Mapping[str, torch.Tensor]) -> list[Problem]:
    """Return a problem if the adapter has tensors beside LoRA's two for a layer.

    PEFT saves an embedding with LoRA on it as well, which is the base model's.
    """
    known = (*_PAIRS, *_PAIRS.values())
    others = [key for key in adapter.tensors if not key.endswith(known)]
    others = [
        key
        for key in others
        if (name := base_name(key)) not in stored
        or not torch.equal(adapter.tensors[key], stored[name])
    ]
    if not others:
        return []
    whole = "layers that were trained whole"
    kinds = {next((_OTHERS[k] for k in _OTHERS if k in key), whole) for key in others}
    return _more(adapter, sorted(kinds), others).problems


def _check_tied(pairs: Iterable[str], shape: Shape, adapter: Adapter) -> list[Problem]:
    ends = {"model.embed_tokens.weight", "lm_head.weight"} & set(pairs)
    if not (shape.tied and ends):
        return []
    changed = f"a change of {' and '.join(sorted(ends))}, which are one tensor of the base model"
    return _more(adapter, [changed]).problems


def _more(adapter: Adapter, kinds: list[str], keys: Iterable[str] = ()) -> UsageError:
    named = join_names(keys)
    return refusal(
        f"--adapter {adapter.folder} has {join_names(kinds)}",
        "llama.cpp adds products of two matrices to weights, and nothing else"
        + (f": {named}" if named else ""),
        "export the merged model instead: "
        + command("export", "--adapter", adapter.folder, "--format", "gguf", "--out", "DIR"),
    )
