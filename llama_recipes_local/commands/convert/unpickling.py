"""Unpickles the metadata of upstream's sharded checkpoints, and nothing else.

A pickle can call anything that it names, so only the plain classes that torch's own metadata
consists of are allowed.
"""

import dataclasses
import io
import pickle
from pathlib import Path
from typing import Any, ClassVar

from torch.distributed.checkpoint.metadata import Metadata

from llama_recipes_local.errors import Problem, UsageError

_METADATA = "torch.distributed.checkpoint.metadata"
_METADATA_OF_2_0 = "torch.distributed._shard.sharded_tensor.metadata"
DTYPES = ("bfloat16", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8")
ALLOWED = frozenset(
    {
        (_METADATA, "Metadata"),
        (_METADATA, "MetadataIndex"),
        (_METADATA, "ChunkStorageMetadata"),
        (_METADATA, "TensorStorageMetadata"),
        (_METADATA, "BytesStorageMetadata"),
        (_METADATA, "TensorProperties"),
        (_METADATA, "StorageMeta"),
        (_METADATA, "_MEM_FORMAT_ENCODING"),
        (_METADATA_OF_2_0, "TensorProperties"),
        (_METADATA_OF_2_0, "MEM_FORMAT_ENCODING"),
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
        ("torch.serialization", "_get_layout"),
        ("torch", "Size"),
        ("torch", "bool"),
        *(("torch", dtype) for dtype in DTYPES),
        ("pathlib", "PosixPath"),
        ("pathlib._local", "PosixPath"),
        ("collections", "OrderedDict"),
    }
)


class _Refused(pickle.UnpicklingError):
    """The pickle names something that is not allowed."""


class _Unpickler(pickle._Unpickler):  # in Python, whose opcodes can be replaced
    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def load_build(self) -> None:
        """Set the state of an instance; a class or function would be changed for the process."""
        target = self.stack[-2]
        if isinstance(target, type) or not dataclasses.is_dataclass(target):
            raise _Refused(f"it changes {target!r}, which is not its own")
        super().load_build()  # type: ignore[misc]

    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise _Refused(f"it names {module}.{name}, which such a file does not need")
        return super().find_class(module, name)


def read_metadata(path: Path) -> Metadata:
    """Read a checkpoint's ``.metadata``.

    Raises:
        UsageError: if it names anything that is not allowed, or is corrupt.
    """
    try:
        metadata = _Unpickler(io.BytesIO(path.read_bytes())).load()
        if not isinstance(metadata, Metadata):
            raise _Refused(f"it is a {type(metadata).__name__}")
    except Exception as error:  # a corrupt pickle raises nearly anything
        problem = Problem(
            f"{path} is not the metadata of a sharded checkpoint",
            str(error) or type(error).__name__,
            "copy the checkpoint again from where it was trained"
            if not isinstance(error, _Refused)
            else "do not trust its source: a pickle can run code, which was prevented here",
        )
        raise UsageError([problem]) from error
    return metadata
