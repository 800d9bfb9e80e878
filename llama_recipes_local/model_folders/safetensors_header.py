"""The header of a safetensors file, for what writes such a file itself.

The format: https://github.com/huggingface/safetensors#format
"""

import json
from collections.abc import Mapping

import torch

DTYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The names of dtypes in a safetensors file, in the order in which their tensors lie there."""


def header_bytes(header: Mapping[str, object]) -> bytes:
    """Return a file's first bytes: the header's length, and the header up to a multiple of 8 bytes.

    Args:
        header: dtype, shape and data offsets of each tensor, and ``__metadata__``.
    """
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
