"""The tensors of safetensors files, each read when it is asked for."""

import json
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from llama_recipes_local.checkpoints import layout
from llama_recipes_local.errors import Problem, UsageError, refusal, refuse
from llama_recipes_local.messages import describe_folder
from llama_recipes_local.model_folders.weight_files import (
    INDEX,
    SINGLE,
    check_weights,
    unreadable,
)
from llama_recipes_local.models import AutoConfig


class StoredTensors(Mapping[str, torch.Tensor]):
    """Tensors by name, on the CPU; none is held in memory.

    A tensor is mapped from its file, so one that is asked for takes memory only as it is used.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        """Read the names in the files' headers.

        Raises:
            UsageError: if a file is no safetensors file, or is cut off.
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

    def path(self, name: str) -> Path:
        """Return the file that a tensor is in."""
        return self._files[name]

    def numel(self) -> int:
        """Return how many numbers all tensors hold together, by the files' headers."""
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
        UsageError: if it has no ``config.json``, or its weights are not there or damaged.
    """
    check_config(folder, flag)
    refuse(check_weights(folder))
    if (folder / SINGLE).is_file():
        return StoredTensors([folder / SINGLE])
    weight_map = json.loads((folder / INDEX).read_text("utf-8"))["weight_map"]
    return StoredTensors(folder / name for name in sorted(set(weight_map.values())))


def read_config(folder: Path) -> dict[str, Any]:
    """Return a model's ``config.json``; nothing if it cannot be read."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def check_converted(folder: Path, flag: str) -> list[Problem]:
    """Return a problem if a ``checkpoint-STEP`` of whole weights was named for a model's folder."""
    weights = folder / layout.WEIGHTS
    if not layout.is_checkpoint(folder) or not any(weights.glob("*.safetensors")):
        return []
    command = f"llama-recipes-local convert {shlex.quote(str(folder))} --out DIR"
    return [
        Problem(
            f"{flag} {folder} is a checkpoint, not a model's folder",
            f"what its run trains is in {weights}, in the pieces that the run is gone on from",
            f"{command} makes a model of it, which is named instead: {flag} DIR",
        )
    ]


def check_config(folder: Path, flag: str) -> None:
    """Refuse a folder without a configuration that transformers reads.

    Raises:
        UsageError: if there is no ``config.json``, or it is damaged, or of no known model.
    """
    path = folder / "config.json"
    fix = f"name the folder of a model in the Hugging Face layout: {flag} DIR"
    if not path.is_file():
        what = f"{folder} has no config.json"
        raise UsageError(
            check_converted(folder, flag) or [Problem(what, describe_folder(folder), fix)]
        )
    try:
        if not isinstance(json.loads(path.read_text("utf-8")), dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        raise refusal(f"{path} cannot be read", str(error), fix) from error
    load_config(folder, fix)


def load_config(folder: Path, fix: str) -> Any:
    """Return a model's configuration as transformers reads it.

    Args:
        folder: the folder with ``config.json``.
        fix: what the user can do if it cannot be read.

    Raises:
        UsageError: if it is missing or damaged, or of no known model.
    """
    try:
        return AutoConfig.from_pretrained(folder)
    except Exception as error:  # transformers has an error of its own for each field
        why = " ".join(str(error).split("\n\n")[0].split())
        raise refusal(f"{folder / 'config.json'} cannot be read", why, fix) from error


def misshapen(found: Mapping[str, torch.Size], wanted: Mapping[str, torch.Size]) -> list[str]:
    """Tell which of the tensors that were found are of another shape than is wanted of them."""
    return [
        f"{name} of shape {tuple(found[name])} instead of {tuple(shape)}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
