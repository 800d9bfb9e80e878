"""Writes a checkpoint's files: hashed as they are written, and on the disk when that is done.

The safetensors library would hold a second copy of every tensor, and hashing would read the file
again; its format is a header and the tensors' bytes, so they are written here as they come.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from llama_recipes_local.checkpoints.layout import FileEntry
from llama_recipes_local.checkpoints.shards import Piece, by_alignment
from llama_recipes_local.storage.hashing import contents_hash

BLOCK = 1 << 24
# https://github.com/huggingface/safetensors#format
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: Path, pieces: Iterable[Piece]) -> FileEntry:
    """Write pieces of tensors as a safetensors file that says where they belong.

    Args:
        path: the file.
        pieces: on any device; what is not in host memory is copied there block by block.

    Raises:
        OSError: if the file cannot be written, for example because the disk is full.
    """
    ordered = by_alignment(pieces)
    return write_file(path, _blocks(ordered))


def write_json(path: Path, content: object) -> FileEntry:
    """Write JSON, with the same promises."""
    return write_file(path, [json.dumps(content, indent=1).encode()])


def write_file(path: Path, blocks: Iterable[bytes | memoryview]) -> FileEntry:
    """Write blocks of bytes, flush them to the disk, and return what was written."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for block in blocks:
            file.write(block)
            digest.update(block)
            size += len(block)
        file.flush()
        os.fsync(file.fileno())
    return FileEntry(size, digest.hexdigest())


def adopt(path: Path) -> FileEntry:
    """Flush a file that a library wrote, and return what it holds."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return FileEntry(path.stat().st_size, contents_hash(path))


def _blocks(pieces: list[Piece]) -> Iterator[bytes | memoryview]:
    """Yield a file's bytes; a block is to be used before the next is asked for.

    What is on a device passes through one block of pinned memory: pages that are made for each
    tensor anew would take longer than the disk.
    """
    yield _header(pieces)
    on_device = any(piece.tensor.is_cuda for piece in pieces)
    passage = torch.empty(BLOCK, dtype=torch.uint8, pin_memory=on_device)
    for piece in pieces:
        tensor = piece.tensor if piece.tensor.is_contiguous() else piece.tensor.cpu().contiguous()
        for block in tensor.view(-1).view(torch.uint8).split(BLOCK):
            on_host = passage[: len(block)].copy_(block) if block.is_cuda else block
            yield on_host.numpy().data


def _header(pieces: list[Piece]) -> bytes:
    """Return the length of the header and the header, whose keys for places are torch's."""
    places = {piece.name: {"saved_offsets": list(piece.offsets)} for piece in pieces}
    header: dict[str, Any] = {
        "__metadata__": {
            "format": "pt",
            "DCP_VERSION": "1.0",
            "DCP_SHARDING_INFO": json.dumps(places),
        }
    }
    start = 0
    for piece in pieces:
        header[piece.name] = {
            "dtype": DTYPES[piece.tensor.dtype],
            "shape": list(piece.tensor.shape),
            "data_offsets": [start, start + piece.size],
        }
        start += piece.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
