"""Reads sharded checkpoints through torch's readers, their tables checked first."""

import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from llama_recipes_local.checkpoints import layout
from llama_recipes_local.commands.convert.unpickling import read_metadata
from llama_recipes_local.errors import refusal
from llama_recipes_local.messages import describe_folder, join_names
from llama_recipes_local.model_folders import ADAPTER_WEIGHTS

TABLE = ".metadata"
AGAIN = "copy the checkpoint again from where it was trained"


class _SafetensorsReader(HuggingFaceStorageReader):
    """torch's reader of this package's checkpoints, which reads the files' headers once."""

    table: Metadata | None = None

    def read_metadata(self) -> Metadata:
        """Return what the files' headers say."""
        if self.table is None:
            self.table = super().read_metadata()
        return self.table


class _PickledTableReader(FileSystemReader):
    """torch's reader of upstream's checkpoints, whose table is not unpickled by torch.

    The tensors themselves torch reads with ``weights_only``.
    """

    table: Metadata

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the table that was read before."""
        return self.table


def weights_of(folder: Path) -> Path:
    """Return where a checkpoint's weights are: a run is gone on from ``checkpoint-STEP/model``.

    Raises:
        UsageError: if what was saved of the run is an adapter.
    """
    if not layout.is_checkpoint(folder):
        return folder
    if (folder / ADAPTER_WEIGHTS).is_file():
        raise refusal(
            f"{folder} holds an adapter",
            "it is in PEFT's format already, beside what a run is gone on from",
            "use it as it is: --adapter of llama-recipes-local generate, evaluate or merge",
        )
    return folder / layout.WEIGHTS


def open_checkpoint(folder: Path) -> tuple[FileSystemReader, Metadata]:
    """Return a reader of a sharded checkpoint, and its table.

    Raises:
        UsageError: if the folder holds none, or it is not whole.
    """
    if (folder / TABLE).is_file():
        pickled = _PickledTableReader(folder)
        table = pickled.table = read_metadata(folder / TABLE)
        _check_files(folder, table)
        reader: FileSystemReader = pickled
    elif _is_sharded(folder):
        reader = _SafetensorsReader(str(folder))
        table = _read_headers(folder, reader)
    else:
        raise refusal(
            f"{folder} is no sharded checkpoint",
            f"it has neither {TABLE} nor shard-*.safetensors; {describe_folder(folder)}",
            "name the folder that --dist_checkpoint_root_folder and --dist_checkpoint_folder led "
            "to; what --checkpoint_type FULL_STATE_DICT saved is a model's folder already",
        )
    _check_chunks(folder, table)
    return reader, table


def _is_sharded(folder: Path) -> bool:
    return any(any(folder.glob(f"{name}-*.safetensors")) for name in ("shard", "rank"))


def _read_headers(folder: Path, reader: FileSystemReader) -> Metadata:
    try:
        return reader.read_metadata()
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        why = f"a file is cut off or not of a checkpoint: {error}"
        raise refusal(f"{folder} is not whole", why, AGAIN) from error


def _check_files(folder: Path, table: Metadata) -> None:
    """Refuse a table that leads out of the folder, to a missing file, or past a file's end."""
    needed: dict[str, int] = {}
    for place in table.storage_data.values():
        name = str(place.relative_path)
        if Path(name).name != name:
            why = f"a part of it is said to be in {name}"
            raise refusal(f"{folder / TABLE} leads out of its folder", why, AGAIN)
        needed[name] = max(needed.get(name, 0), place.offset + place.length)
    wrong = [
        name
        for name, size in sorted(needed.items())
        if not (folder / name).is_file() or (folder / name).stat().st_size < size
    ]
    if wrong:
        why = f"missing or cut off: {join_names(wrong)}"
        raise refusal(f"{folder} is not whole", why, AGAIN)


def _check_chunks(folder: Path, table: Metadata) -> None:
    """Refuse tensors of which a part is missing, as when a rank's file is."""
    partial = [
        name
        for name, tensor in table.state_dict_metadata.items()
        if isinstance(tensor, TensorStorageMetadata)
        and sum(math.prod(chunk.sizes) for chunk in tensor.chunks) != math.prod(tensor.size)
    ]
    if partial:
        why = f"there are only parts of {join_names(partial)}"
        raise refusal(f"{folder} is not whole", why, AGAIN)
