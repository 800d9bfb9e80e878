"""Writes a checkpoint's files: hashes them while writing, and flushes them to the disk.

The safetensors library would hold a second copy of every tensor, and hashing afterwards would read
each file again. A safetensors file is a header followed by the tensors' bytes, so this module
writes and hashes both in one pass.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from llama_recipes_local.checkpoints.layout import FileEntry
from llama_recipes_local.checkpoints.shards import TensorShard, sorted_by_alignment
from llama_recipes_local.model_folders.safetensors_header import DTYPES, header_bytes
from llama_recipes_local.storage.hashing import contents_hash

BLOCK = 1 << 24


def write_tensors(path: Path, shards: Iterable[TensorShard]) -> FileEntry:
    """Write shards of tensors as a safetensors file that records their offsets.

    Args:
        path: the file.
        shards: on any device; what is not in host memory is copied there block by block.

    Raises:
        OSError: if the file cannot be written, for example because the disk is full.
    """
    ordered = sorted_by_alignment(shards)
    return write_file(path, _blocks(ordered))


def write_json(path: Path, content: object) -> FileEntry:
    """Write JSON, with the same guarantees."""
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


def sync_and_hash(path: Path) -> FileEntry:
    """Flush a file that a library wrote, and return its size and hash."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return FileEntry(path.stat().st_size, contents_hash(path))


def _blocks(shards: list[TensorShard]) -> Iterator[bytes | memoryview]:
    """Yield a file's bytes; each block is valid until the next is requested.

    What is on a device is copied through one block of pinned memory, which is reused: allocating
    pages for each tensor would take longer than the disk.
    """
    yield _header(shards)
    on_device = any(shard.tensor.is_cuda for shard in shards)
    pinned = torch.empty(BLOCK, dtype=torch.uint8, pin_memory=on_device)
    for shard in shards:
        tensor = shard.tensor if shard.tensor.is_contiguous() else shard.tensor.cpu().contiguous()
        for block in tensor.view(-1).view(torch.uint8).split(BLOCK):
            on_host = pinned[: len(block)].copy_(block) if block.is_cuda else block
            yield on_host.numpy().data


def _header(shards: list[TensorShard]) -> bytes:
    """Return the header and its length; torch's keys record where each shard begins."""
    offsets_by_name = {shard.name: {"saved_offsets": list(shard.offsets)} for shard in shards}
    header: dict[str, Any] = {
        "__metadata__": {
            "format": "pt",
            "DCP_VERSION": "1.0",
            "DCP_SHARDING_INFO": json.dumps(offsets_by_name),
        }
    }
    start = 0
    for shard in shards:
        header[shard.name] = {
            "dtype": DTYPES[shard.tensor.dtype],
            "shape": list(shard.tensor.shape),
            "data_offsets": [start, start + shard.size],
        }
        start += shard.size
    return header_bytes(header)
