"""A hash of weights from a part of each tensor: in a moment, whatever the size of the model."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

WHOLE = 1 << 26  # a file of up to so many bytes is read completely
BLOCK = 1 << 13  # bytes in the middle of each tensor of a larger one


def sampled_hash(files: list[Path]) -> str:
    """Return a hash of safetensors files: of their headers, and of a block of each tensor.

    Two models that were trained differently differ in each tensor that was trained, nearly
    everywhere; a bit that flipped in a large file may not be seen.
    """
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(path.name.encode())
            for block in _blocks(file):
                digest.update(block)
    return digest.hexdigest()


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    if os.fstat(file.fileno()).st_size <= WHOLE:
        yield file.read()
        return
    length = int.from_bytes(file.read(8), "little")
    header = file.read(length)
    yield header
    for name, tensor in json.loads(header).items():
        if name != "__metadata__":
            begin, end = tensor["data_offsets"]
            file.seek(8 + length + max(begin, (begin + end - BLOCK) // 2))
            yield file.read(min(BLOCK, end - begin))
