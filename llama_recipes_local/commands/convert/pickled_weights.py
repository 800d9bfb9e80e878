"""Reads tensors from pickles that torch wrote, without running the code in them."""

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from llama_recipes_local.errors import UsageError, refusal
from llama_recipes_local.model_folders.weight_files import check_pointer


def read_pickled(files: Iterable[Path]) -> list[dict[str, torch.Tensor]]:
    """Return the tensors of each file by name, mapped from the disk where its format allows.

    Raises:
        UsageError: if a file is corrupt, or holds anything but tensors.
    """
    return [_read(path) for path in files]


def _read(path: Path) -> dict[str, torch.Tensor]:
    if pointer := check_pointer(path):
        raise UsageError(pointer)
    try:
        found: Any = _load(path)
        if not isinstance(found, Mapping) or not found:
            raise ValueError("it holds no tensors by name")
        others = [name for name, each in found.items() if not isinstance(each, torch.Tensor)]
        if others:
            raise ValueError(f"it holds {others[0]}, which is no tensor")
    except (RuntimeError, ValueError, EOFError, OSError, KeyError, pickle.UnpicklingError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        fix = "copy it again from where the model was published; code in it is never run"
        raise refusal(f"{path} is not a file of tensors", why, fix) from error
    return {str(name): tensor for name, tensor in found.items()}


def _load(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        # torch's format before 1.6 cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True)
