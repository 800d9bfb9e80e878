"""Writes a model's folder shard by shard: no more than one shard is in memory."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from tqdm import tqdm

from llama_recipes_local.model_folders.weight_files import INDEX
from llama_recipes_local.storage.publishing import write_json

SHARD_BYTES = 5 * 10**9
"""The size at which transformers has split model folders since before safetensors."""


def write_weights(
    folder: Path, planned: Mapping[str, torch.Tensor], tensor: Callable[[str], torch.Tensor]
) -> None:
    """Write a model's weights and, if there are several files, their index.

    Args:
        folder: where to write.
        planned: a meta tensor of each tensor's shape and dtype.
        tensor: returns a tensor by its name; called once for each, file by file.
    """
    split = split_torch_state_dict_into_shards(
        dict(planned), max_shard_size=SHARD_BYTES, filename_pattern="model{suffix}.safetensors"
    )
    bar = tqdm(total=len(planned), unit=" tensors", desc="writing", leave=False, disable=None)
    with bar:
        for file, names in split.filename_to_tensors.items():
            _write_shard(folder / file, names, tensor, bar)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(folder / INDEX, index)


def _write_shard(
    path: Path, names: list[str], tensor: Callable[[str], torch.Tensor], bar: "tqdm[object]"
) -> None:
    shard = {}
    for name in names:
        shard[name] = tensor(name).detach().contiguous()
        bar.update()
    save_file(shard, path, metadata={"format": "pt"})


def write_config(
    source: Path, folder: Path, without: Sequence[str] = (), **changes: object
) -> None:
    """Write ``config.json`` of the folder ``source`` with some changes.

    Args:
        source: the folder of the model that is exported.
        folder: where to write.
        without: keys to leave out.
        **changes: keys with new values.
    """
    config = json.loads((source / "config.json").read_text("utf-8")) | changes
    kept = {key: value for key, value in config.items() if key not in without}
    write_json(folder / "config.json", kept)
