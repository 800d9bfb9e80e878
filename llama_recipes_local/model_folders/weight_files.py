"""The files that a model's weights are in: whether they are there and whole; no weight is read."""

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from llama_recipes_local.errors import Problem
from llama_recipes_local.messages import describe_folder
from llama_recipes_local.storage.names import check_name

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def has_weights(folder: Path) -> bool:
    """Tell whether a folder names files of weights; see ``check_weights``."""
    return (folder / SINGLE).is_file() or (folder / INDEX).is_file()


def check_weights(folder: Path) -> list[Problem]:
    """Return why a folder's weights cannot be read."""
    if (folder / SINGLE).is_file():
        return _damaged([folder / SINGLE])
    if (folder / INDEX).is_file():
        return _check_shards(folder)
    pickled = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pth"))
    why = (
        f"only {pickled[0].name} is there, a pickle, which could run code when it is read"
        if pickled
        else describe_folder(folder)
    )
    return [
        Problem(
            f"{folder} has no weights in safetensors",
            why,
            "download the model's *.safetensors files, or save it again with "
            "save_pretrained of a current transformers",
        )
    ]


def _check_shards(folder: Path) -> list[Problem]:
    index = folder / INDEX
    try:
        shards = {str(name) for name in json.loads(index.read_text("utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [Problem(f"{index} is no index of weights", repr(error), "copy the model again")]
    missing = sorted(shard for shard in shards if not (folder / shard).is_file())
    if not missing:
        return _damaged(folder / shard for shard in sorted(shards))
    return [
        Problem(
            f"{folder} lacks {len(missing)} of {len(shards)} weight files",
            f"missing: {', '.join(missing[:5])}",
            "copy these files into the folder",
        )
    ]


def _damaged(files: Iterable[Path]) -> list[Problem]:
    """Find files that were cut off, or are a pointer of git-lfs; only their headers are read."""
    problems = []
    for path in files:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            problems.append(unreadable(path, error))
    return problems


def unreadable(path: Path, error: Exception) -> Problem:
    """Return the problem with a file of weights that safetensors refuses."""
    damaged = Problem(f"{path} is not a whole safetensors file", str(error), "copy the file again")
    return next(iter(check_name(path)), damaged)
