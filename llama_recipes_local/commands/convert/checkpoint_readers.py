"""Opens sharded checkpoints with torch's readers, after checking their metadata."""

import math
from pathlib import Path

from safetensors import SafetensorError
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from llama_recipes_local.checkpoints import layout
from llama_recipes_local.commands.convert.unpickling import read_metadata
from llama_recipes_local.errors import refusal
from llama_recipes_local.messages import describe_folder, join_names
from llama_recipes_local.model_folders.adapter_files import ADAPTER_WEIGHTS
from llama_recipes_local.program import command

METADATA = ".metadata"
AGAIN = "copy the checkpoint again from where it was trained"


class _SafetensorsReader(HuggingFaceStorageReader):
    """torch's reader of this package's checkpoints, which reads the files' headers only once."""

    metadata: Metadata | None = None

    def read_metadata(self) -> Metadata:
        """Return the metadata of the files' headers."""
        if self.metadata is None:
            self.metadata = super().read_metadata()
        return self.metadata


class _PickledMetadataReader(FileSystemReader):
    """torch's reader of upstream's checkpoints, whose metadata torch does not unpickle.

    torch reads the tensors with ``weights_only``.
    """

    metadata: Metadata

    def read_metadata(self, *args: object, **kwargs: object) -> Metadata:
        """Return the metadata that was read before."""
        return self.metadata


def weights_of(folder: Path) -> Path:
    """Return the folder of a checkpoint's weights, which is ``checkpoint-STEP/model`` of a run's.

    Raises:
        UsageError: if the checkpoint has an adapter.
    """
    if not layout.is_checkpoint(folder):
        return folder
    if (folder / ADAPTER_WEIGHTS).is_file():
        raise refusal(
            f"{folder} is a checkpoint of an adapter",
            "the adapter is already in PEFT's format, next to the resume state",
            f"use it directly: --adapter of {command()} generate, evaluate or merge",
        )
    return folder / layout.WEIGHTS


def open_checkpoint(folder: Path) -> tuple[FileSystemReader, Metadata]:
    """Return a reader of a sharded checkpoint, and its metadata.

    Raises:
        UsageError: if the folder has none, or it is incomplete.
    """
    if (folder / METADATA).is_file():
        pickled = _PickledMetadataReader(folder)
        metadata = pickled.metadata = read_metadata(folder / METADATA)
        _check_files(folder, metadata)
        reader: FileSystemReader = pickled
    elif _is_sharded(folder):
        reader = _SafetensorsReader(str(folder))
        metadata = _read_headers(folder, reader)
    else:
        raise refusal(
            f"{folder} is not a sharded checkpoint",
            f"it has neither {METADATA} nor shard-*.safetensors; {describe_folder(folder)}",
            _instead(folder),
        )
    _check_shards(folder, metadata)
    return reader, metadata


def _instead(folder: Path) -> str:
    """Return what to name instead of a path that is not a checkpoint."""
    if folder.is_file():
        return "name a folder, or a GGUF file, whose name ends in .gguf"
    if (folder / ADAPTER_WEIGHTS).is_file():
        merged = command("merge", "--adapter", folder, "--out", "DIR")
        return f"it is an adapter, which becomes a model with its base: {merged}"
    for file in sorted(folder.glob("*.gguf")):
        return f"name the GGUF file: {command('convert', file, '--out', 'DIR')}"
    return (
        "name the folder below --dist_checkpoint_root_folder; what --checkpoint_type "
        "FULL_STATE_DICT saved is already a model folder"
    )


def _is_sharded(folder: Path) -> bool:
    return any(any(folder.glob(f"{name}-*.safetensors")) for name in ("shard", "rank"))


def _read_headers(folder: Path, reader: FileSystemReader) -> Metadata:
    try:
        return reader.read_metadata()
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        why = f"a file is truncated or not a checkpoint's: {error}"
        raise refusal(f"{folder} is incomplete", why, AGAIN) from error


def _check_files(folder: Path, metadata: Metadata) -> None:
    """Refuse metadata that points out of the folder, to a missing file, or past a file's end."""
    needed: dict[str, int] = {}
    for place in metadata.storage_data.values():
        name = str(place.relative_path)
        if Path(name).name != name:
            why = f"it points to {name}"
            raise refusal(f"{folder / METADATA} points out of its folder", why, AGAIN)
        needed[name] = max(needed.get(name, 0), place.offset + place.length)
    wrong = [
        name
        for name, size in sorted(needed.items())
        if not (folder / name).is_file() or (folder / name).stat().st_size < size
    ]
    if wrong:
        why = f"missing or truncated: {join_names(wrong)}"
        raise refusal(f"{folder} is incomplete", why, AGAIN)


def _check_shards(folder: Path, metadata: Metadata) -> None:
    """Refuse tensors of which a shard is missing, as when a rank's file is."""
    partial = [
        name
        for name, tensor in metadata.state_dict_metadata.items()
        if isinstance(tensor, TensorStorageMetadata)
        and sum(math.prod(chunk.sizes) for chunk in tensor.chunks) != math.prod(tensor.size)
    ]
    if partial:
        why = f"missing shards of {join_names(partial)}"
        raise refusal(f"{folder} is incomplete", why, AGAIN)
