"""A hash of a part of each tensor, computed in a moment whatever the size of the model."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

WHOLE = 1 << 26  # weights of up to so many bytes are read completely
BLOCK = 1 << 13  # bytes in the middle of each tensor of larger ones


class Place(NamedTuple):
    """Where a tensor is in its file, by the header: name, dtype as in safetensors, shape, bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    begin: int
    end: int

    def middle(self, number: int, size: int = 1) -> bytes:
        """Return up to ``number`` elements of ``size`` bytes each, from the middle."""
        there = (self.end - self.begin) // size
        first = max(0, (there - number) // 2)
        with self.path.open("rb") as file:
            file.seek(self.begin + first * size)
            return file.read(min(number, there) * size)


def places(files: Iterable[Path]) -> list[Place]:
    """Return the tensors of safetensors files sorted by name, whichever file has them.

    Args:
        files: those of a folder that ``check_weights`` finds nothing wrong with.
    """
    found = []
    for path in files:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, tensor in header.items():
            begin, end = (8 + length + offset for offset in tensor["data_offsets"])
            shape = tuple(tensor["shape"])
            found.append(Place(name, tensor["dtype"], shape, path, begin, end))
    return sorted(found)


def sampled_hash(tensors: Iterable[Place]) -> str:
    """Return a hash of tensors' names, dtypes and shapes, and of a block of each.

    It is the same however the tensors are spread over files. Two models that were trained
    differently differ in each tensor that was trained, nearly everywhere; a bit that flipped in a
    large file may not be seen.
    """
    tensors = list(tensors)
    small = sum(each.end - each.begin for each in tensors) <= WHOLE
    digest = hashlib.sha256()
    for each in tensors:
        digest.update(f"{each.name} {each.dtype} {each.shape}\n".encode())
        digest.update(each.middle(each.end - each.begin if small else BLOCK))
    return digest.hexdigest()
