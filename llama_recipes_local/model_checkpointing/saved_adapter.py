"""Gathers a model's adapter from all ranks, and writes it in PEFT's format."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTuner
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig

from llama_recipes_local.model_checkpointing.adapter_card import CARD
from llama_recipes_local.model_folders.adapter_files import ADAPTER_WEIGHTS
from llama_recipes_local.model_folders.base_record import record_base
from llama_recipes_local.parallel import full_tensor

Tensors = dict[str, torch.Tensor]

_BOTH = ("embed_tokens", "lm_head")


def adapter_state(model: nn.Module) -> Tensors:
    """Return a copy of an adapter in host memory; all ranks call this together.

    Each trained tensor is gathered from all ranks' shards. Embeddings that were resized for new
    tokens are included, because the base model has no rows for those, and so are a method's tensors
    that are not trained, as VeRA's projections.
    """
    assert isinstance(model, PeftModel)
    resized = {id(parameter) for parameter in resized_embeddings(model)}
    kept = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or id(parameter) in resized
    }
    return {
        name: full_tensor(tensor.detach()).to("cpu", copy=True)
        for name, tensor in (kept | _own_tensors(model)).items()
    }


def _own_tensors(model: PeftModel) -> Tensors:
    """Return what PEFT saves of a method, trained or not, by each of its names in the model.

    PEFT asks for tensors that layers share by the name that is not a layer's.
    """
    if not isinstance(model.base_model, BaseTuner):  # learned prompts
        return {}
    passing = {
        f"{path}.{name}"
        for path, module in model.named_modules(remove_duplicate=False)
        for name in module._non_persistent_buffers_set
    }
    tensors: Tensors = {
        name: tensor
        for named in (model.named_parameters, model.named_buffers)
        for name, tensor in named(remove_duplicate=False)
        if name not in passing
    }
    saved = get_peft_model_state_dict(model, state_dict=tensors, save_embedding_layers=False)
    own = {id(tensor) for tensor in saved.values()}
    found = {name: tensor for name, tensor in tensors.items() if id(tensor) in own}
    as_saved = [name for name in found if name.replace(f".{model.active_adapter}", "") in saved]
    known = {id(found[name]) for name in as_saved}  # by the name in the file, a tied head has none
    others = [name for name, tensor in found.items() if id(tensor) not in known]
    return {name: found[name] for name in (*as_saved, *others)}


def write_adapter(model: nn.Module, state: Tensors, folder: Path) -> None:
    """Write what ``adapter_state`` returned into a folder in PEFT's format; one rank does.

    PEFT's model card, which is empty but for the base model's path on this machine, is left out.
    """
    assert isinstance(model, PeftModel)
    # of the embedding, PEFT saves what is in the state
    model.save_pretrained(str(folder), state_dict=state, save_embedding_layers=True)
    (folder / CARD).unlink(missing_ok=True)
    _add_lost_embedding(state, folder / ADAPTER_WEIGHTS)
    record_base(folder, Path(model.active_peft_config.base_model_name_or_path or ""))


def _add_lost_embedding(state: Tensors, weights: Path) -> None:
    """Add a resized embedding or head that PEFT left out because the other one has LoRA."""
    saved = load_file(weights)
    lost = {
        name: tensor
        for name, tensor in state.items()
        if name.endswith(tuple(f".{layer}.weight" for layer in _BOTH)) and name not in saved
    }
    if lost:
        save_file(saved | lost, weights, metadata={"format": "pt"})


def resized_embeddings(model: PeftModel) -> list[nn.Parameter]:
    """Return the embeddings' parameters if the base model's folder has another vocabulary size.

    None are returned where the adapter trains all rows that the folder does not have.
    """
    folder = model.active_peft_config.base_model_name_or_path
    if not folder or not (Path(folder) / "config.json").is_file():
        return []
    saved = AutoConfig.from_pretrained(folder, local_files_only=True)
    base: Any = model.get_base_model()
    rows, before = (getattr(each, "vocab_size", None) for each in (base.config, saved))
    if rows == before or _trains_rows(model, range(before or 0, rows or 0)):
        return []
    layers = (base.get_input_embeddings(), base.get_output_embeddings())
    return [parameter for layer in layers if layer is not None for parameter in layer.parameters()]


def _trains_rows(model: PeftModel, rows: range) -> bool:
    """Return whether an adapter trains rows of the embedding and the head as single tokens."""
    indices: Any = getattr(model.active_peft_config, "trainable_token_indices", None)
    base: Any = model.get_base_model()
    tied = getattr(base.config, "tie_word_embeddings", False)
    if isinstance(indices, dict):
        layers = [indices.get(layer, []) for layer in (("embed_tokens",) if tied else _BOTH)]
    else:
        layers = [indices or []] if tied else [[]]
    return all(set(rows) <= set(each) for each in layers)
