"""A pickle of metadata changes nothing of the process, even if what it names is allowed."""

import pickle
from pathlib import Path

import pytest
from torch.distributed.checkpoint import metadata

from llama_recipes_local.commands.convert.unpickling import read_metadata
from llama_recipes_local.errors import UsageError


@pytest.mark.parametrize("name", ["Metadata", "TensorProperties", "_MEM_FORMAT_ENCODING"])
@pytest.mark.parametrize("state", [b"}", b"N}\x8c\x04markK\x01s\x86"])
def test_a_class_has_no_state_to_set(tmp_path: Path, name: str, state: bytes) -> None:
    attributes = dict(vars(getattr(metadata, name)))
    path = tmp_path / ".metadata"
    path.write_bytes(b"\x80\x04c" + f"{metadata.__name__}\n{name}\n".encode() + state + b"b.")
    with pytest.raises(UsageError, match="which is not its own"):
        read_metadata(path)
    assert dict(vars(getattr(metadata, name))) == attributes


def test_what_torch_writes_is_read(tmp_path: Path) -> None:
    written = metadata.Metadata({"x": metadata.BytesStorageMetadata()}, None, {"a": 1})
    path = tmp_path / ".metadata"
    path.write_bytes(pickle.dumps(written))
    assert read_metadata(path) == written
