"""A LoRA adapter as a GGUF file, which llama.cpp adds to the file of its base model."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from llama_recipes_local.gguf_files.llama_tensors import EMBEDDING, swapped, targets
from llama_recipes_local.gguf_files.shape import Shape


@dataclass(frozen=True)
class LoraPair:
    """The change of a weight: ``scale * up @ down``.

    Attributes:
        down: returns LoRA's A, (rank, columns), float32.
        up: returns LoRA's B, (rows, rank), float32.
        rank: of both.
        scale: factor of the product.
    """

    down: Callable[[], torch.Tensor]
    up: Callable[[], torch.Tensor]
    rank: int
    scale: float


def write_lora(path: Path, name: str, shape: Shape, pairs: Mapping[str, LoraPair]) -> None:
    """Write the file, in float32.

    llama.cpp multiplies each product by ``adapter.lora.alpha`` over its rank. For a layer with
    another scale, B is multiplied by the rest of it.

    Args:
        path: the file.
        name: the adapter's name.
        shape: the base model's sizes.
        pairs: by the weight's name in the base model's folder; each must be a weight of a Llama.
    """
    from gguf import GGUFWriter, Keys

    alpha = max((each.scale * each.rank for each in pairs.values()), key=abs) or 1.0
    writer = GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_name(name)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha)
    for file_name, target in targets(shape).items():
        if target.name not in pairs:
            continue
        pair = pairs[target.name]
        down, up = pair.down(), pair.up()
        left = pair.scale * pair.rank / alpha
        if not math.isclose(left, 1):
            up = up * left
        if target.heads:
            up = swapped(up, target.heads)
        if file_name == EMBEDDING:  # whose rows are looked up: one of A for each token
            down = down.T
        for suffix, tensor in (("lora_a", down), ("lora_b", up)):
            writer.add_tensor(f"{file_name}.{suffix}", tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
