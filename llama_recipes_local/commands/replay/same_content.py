"""Whether files with different bytes have the same content, as formats without an order may."""

import hashlib
import json
from pathlib import Path
from typing import Any

from llama_recipes_local.model_folders.adapter_files import ADAPTER_CONFIG
from llama_recipes_local.run.record import BASE_RECORD
from llama_recipes_local.storage.hashing import BLOCK

_PLACES = ("base_model_name_or_path", "name")
"""What an adapter's files say of the base model's folder."""


def is_same(one: Path, other: Path) -> bool:
    """Return whether two files of a result, whose hashes differ, hold the same."""
    if not (one.is_file() and other.is_file()):
        return False
    try:
        if one.suffix == ".safetensors":
            return _tensors(one) == _tensors(other)
        return one.name in (ADAPTER_CONFIG, BASE_RECORD) and _json(one) == _json(other)
    except (OSError, ValueError):
        return False


def _tensors(path: Path) -> tuple[Any, str]:
    """Return the header of a safetensors file, whose entries are in any order, and a hash."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        digest = hashlib.sha256()
        while block := file.read(BLOCK):
            digest.update(block)
    return header, digest.hexdigest()


def _json(path: Path) -> Any:
    """Return what an adapter's file holds, without the base model's place.

    PEFT writes sets as lists, in any order.
    """
    content = json.loads(path.read_text("utf-8"))
    for name, value in content.items():
        content[name] = sorted(map(str, value)) if isinstance(value, list) else value
    return content | dict.fromkeys(_PLACES)
