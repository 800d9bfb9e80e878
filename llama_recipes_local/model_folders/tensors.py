"""The tensors of a model's folder, each read from its safetensors file when it is needed."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from llama_recipes_local.errors import UsageError, refuse
from llama_recipes_local.model_folders.model_config import check_config
from llama_recipes_local.model_folders.weight_files import (
    check_weights,
    unreadable,
    weight_files,
)

FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""The dtypes of weights that are not quantised, by their names in safetensors files."""


class Header(NamedTuple):
    """What a file's header says of a tensor: its shape, and its dtype as safetensors names it."""

    shape: torch.Size
    dtype: str


class StoredTensors(Mapping[str, torch.Tensor]):
    """Tensors by name, on the CPU, none of them in memory.

    A tensor is mapped from its file, so that one takes memory only when it is used.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        """Read the names in the files' headers.

        Raises:
            UsageError: if a file is not a safetensors file, or is truncated.
        """
        self._files: dict[str, Path] = {}
        for path in files:
            try:
                with safe_open(path, framework="pt") as file:
                    self._files |= dict.fromkeys(file.keys(), path)
            except (SafetensorError, OSError) as error:
                raise UsageError([unreadable(path, error)]) from error

    def __getitem__(self, name: str) -> torch.Tensor:
        with safe_open(self._files[name], framework="pt") as file:
            return file.get_tensor(name)

    def rows(self, name: str, places: Sequence[int]) -> torch.Tensor:
        """Return some rows of a tensor, (places, ...), without reading the others."""
        with safe_open(self._files[name], framework="pt") as file:
            tensor = file.get_slice(name)
            return torch.cat([tensor[place : place + 1] for place in places])

    def path(self, name: str) -> Path:
        """Return the file that holds a tensor."""
        return self._files[name]

    def headers(self) -> dict[str, Header]:
        """Return the shape and dtype of every tensor, by the files' headers."""
        found: dict[str, Header] = {}
        for path in sorted(set(self._files.values())):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    place = file.get_slice(name)
                    found[name] = Header(torch.Size(place.get_shape()), place.get_dtype())
        return found

    def numel(self) -> int:
        """Return the number of elements of all tensors, by the files' headers."""
        total = 0
        for path in set(self._files.values()):
            with safe_open(path, framework="pt") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        return total

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def model_tensors(folder: Path, flag: str) -> StoredTensors:
    """Return the tensors of a model's folder.

    Args:
        folder: a folder in the Hugging Face layout.
        flag: the flag that names it.

    Raises:
        UsageError: if it has no ``config.json``, or its weights are missing or corrupt.
    """
    check_config(folder, flag)
    refuse(check_weights(folder))
    return StoredTensors(weight_files(folder))


def shape_mismatches(
    found: Mapping[str, torch.Size], wanted: Mapping[str, torch.Size]
) -> list[str]:
    """Describe the tensors that were found with another shape than the wanted one."""
    return [
        f"{name} of shape {tuple(found[name])} instead of {tuple(shape)}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]


def parameter_count(folder: Path) -> int | None:
    """Return how many parameters a model's folder holds; None if that cannot be read."""
    try:
        return model_tensors(folder, "--model_name").numel()
    except UsageError:  # which the check of the model reports
        return None
