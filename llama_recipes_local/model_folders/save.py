"""Writes a model's folder: one tensor is in memory at a time."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from tqdm import tqdm

from llama_recipes_local.model_folders.safetensors_header import DTYPES, header_bytes
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
            shard = {name: planned[name] for name in names}
            _write_shard(folder / file, shard, tensor, bar)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(folder / INDEX, index)


def _write_shard(
    path: Path,
    planned: Mapping[str, torch.Tensor],
    tensor: Callable[[str], torch.Tensor],
    bar: "tqdm[object]",
) -> None:
    """Write a safetensors file, the bytes that safetensors itself writes of all tensors at once."""
    dtypes = list(DTYPES)
    order = sorted(planned, key=lambda name: (dtypes.index(planned[name].dtype), name))
    ends = list(accumulate(planned[name].numel() * planned[name].itemsize for name in order))
    places = dict(zip(order, zip([0, *ends], ends, strict=False), strict=True))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for name, (begin, end) in places.items():
        dtype, shape = DTYPES[planned[name].dtype], list(planned[name].shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    begin_of_file = header_bytes(header)
    with path.open("wb") as file:
        file.write(begin_of_file)
        for name, meta in planned.items():
            found = tensor(name).detach().contiguous()
            assert (found.shape, found.dtype) == (meta.shape, meta.dtype), name
            file.seek(len(begin_of_file) + places[name][0])
            file.write(found.flatten().view(torch.uint8).numpy().data)
            bar.update()


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
