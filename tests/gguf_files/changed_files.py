"""Writes a GGUF file again with other values of keys, or other tensors, as by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf

MISSING = object()
"""In place of a value: the key is left out."""


def values_of(path: Path) -> dict[str, Any]:
    """Return the values of a file by key."""
    return {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}


def rewrite(
    path: Path, changes: Mapping[str, Any], out: Path, moved: Mapping[str, str] | None = None
) -> None:
    """Write a file with changes.

    Args:
        path: the file.
        changes: a value, or a function of the value, by key; a new key's type is its value's.
        out: the new file.
        moved: the tensor that is written in place of another, by the other's name.
    """
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(out, "llama")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = field.contents()
        if key in changes:
            change = changes[key]
            value = change(value) if callable(change) else change
        if value is not MISSING:
            kinds = [*field.types, None]
            writer.add_key_value(key, value, kinds[0], sub_type=kinds[1])
    for key in changes.keys() - reader.fields.keys():
        kind = gguf.GGUFValueType.get_type(changes[key])
        writer.add_key_value(key, changes[key], kind)
    tensors = {each.name: each for each in reader.tensors}
    for name in tensors:
        tensor = tensors[(moved or {}).get(name, name)]
        writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
