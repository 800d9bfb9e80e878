"""A model's weight files: are they complete; only headers are read."""

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
    """Return whether a folder has weight files; see ``check_weights``."""
    return (folder / SINGLE).is_file() or (folder / INDEX).is_file()


def check_weights(folder: Path) -> list[Problem]:
    """Return the problems that keep a folder's weights from being read."""
    if (folder / SINGLE).is_file():
        return _check_headers([folder / SINGLE])
    if (folder / INDEX).is_file():
        return _check_shards(folder)
    pickled = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pth"))
    why = (
        f"only {pickled[0].name} was found, a pickle, which could run code when it is loaded"
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
        return [Problem(f"{index} is not an index of weights", repr(error), "copy the model again")]
    missing = sorted(shard for shard in shards if not (folder / shard).is_file())
    if not missing:
        return _check_headers(folder / shard for shard in sorted(shards))
    return [
        Problem(
            f"{folder} has only {len(shards) - len(missing)} of {len(shards)} weight files",
            f"missing: {', '.join(missing[:5])}",
            "copy these files into the folder",
        )
    ]


def _check_headers(files: Iterable[Path]) -> list[Problem]:
    """Find files that are truncated, or pointers of Git LFS; only their headers are read."""
    problems = []
    for path in files:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            problems.append(unreadable(path, error))
    return problems


def unreadable(path: Path, error: Exception) -> Problem:
    """Return the problem with a weight file that safetensors refuses."""
    corrupt = Problem(
        f"{path} is not a complete safetensors file", str(error), "copy the file again"
    )
    return next(iter(check_name(path)), corrupt)
