"""How a GGUF file stores its tensors: llama.cpp's types, and which tensor has which."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from llama_recipes_local.gguf_files.llama_tensors import EMBEDDING, OUTPUT

if TYPE_CHECKING:
    import numpy as np

_K_BLOCK = 256
_INSTEAD = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What llama.cpp takes for rows that blocks of 256 do not divide."""


@dataclass(frozen=True)
class FileType:
    """A type of a whole file.

    Attributes:
        name: llama.cpp's name, as in file names.
        number: its number, ``general.file_type``.
        tensor: the type of most tensors.
        output: the type of the output layer, whose errors count most.
        some: the type of some values and of some of the last MLP layers; "" if there is none.
    """

    name: str
    number: int
    tensor: str
    output: str
    some: str = ""


FILE_TYPES = {
    each.name.lower(): each
    for each in (
        FileType("F32", 0, "F32", "F32"),
        FileType("F16", 1, "F16", "F16"),
        FileType("BF16", 32, "BF16", "BF16"),
        FileType("Q8_0", 7, "Q8_0", "Q8_0"),
        FileType("Q6_K", 18, "Q6_K", "Q6_K"),
        FileType("Q5_K_M", 17, "Q5_K", "Q6_K", some="Q6_K"),
        FileType("Q4_K_M", 15, "Q4_K", "Q6_K", some="Q6_K"),
        FileType("Q4_1", 3, "Q4_1", "Q6_K"),
        FileType("Q4_0", 2, "Q4_0", "Q6_K"),
    )
}


def tensor_type(name: str, shape: tuple[int, ...], file: FileType, layers: int, tied: bool) -> str:
    """Return the type of a tensor, chosen as llama.cpp's own quantisation does.

    Args:
        name: its name in the file.
        shape: of the tensor.
        file: type of the file.
        layers: of the model.
        tied: whether the embedding is the output layer.
    """
    if len(shape) == 1:
        return "F32"
    found = re.fullmatch(r"blk\.(\d+)\.(attn_v|ffn_down)\.weight", name)
    if name == (EMBEDDING if tied else OUTPUT):
        kind = file.output
    elif file.some and found and _counts_more(int(found[1]), layers):
        kind = file.some
    else:
        kind = file.tensor
    return _INSTEAD.get(kind, kind) if shape[1] % _K_BLOCK else kind


def _counts_more(layer: int, layers: int) -> bool:
    """Return whether llama.cpp gives a layer more bits: first and last eighth, every third."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def row_bytes(kind: str, columns: int) -> int:
    """Return the bytes of a row stored in a type."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return columns // block * size


def block_of(kind: str) -> int:
    """Return the number of weights in a block of a type."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    return GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0]


def stored(weight: torch.Tensor, kind: str) -> "np.ndarray":
    """Return a tensor's values in the form that a file stores.

    Args:
        weight: (columns,) or (rows, columns), floats.
        kind: the type.

    Returns:
        Bytes, or float32 or float16.
    """
    from gguf import GGMLQuantizationType, quantize

    from llama_recipes_local.gguf_files import k_quants

    own: dict[str, Callable[[torch.Tensor], np.ndarray]] = {
        "Q4_K": k_quants.quantize_q4_k,
        "Q5_K": k_quants.quantize_q5_k,
        "Q6_K": k_quants.quantize_q6_k,
    }
    values = weight.float().contiguous()
    if kind == "F32":
        return values.numpy()
    if kind == "F16":
        return values.half().numpy()
    if kind in own:
        return own[kind](values)
    return quantize(values.numpy(), GGMLQuantizationType[kind])
