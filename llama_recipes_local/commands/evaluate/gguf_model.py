"""Opens a GGUF file for ``evaluate``, by converting it to a temporary model folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import torch

from llama_recipes_local.errors import UsageError, refusal
from llama_recipes_local.gguf_files.folder_of_file import GgufModel
from llama_recipes_local.messages import amount, missing_path
from llama_recipes_local.parallel import device_type
from llama_recipes_local.program import command
from llama_recipes_local.storage.disk import free_bytes

SUFFIX = ".gguf"


@dataclass
class OpenedFile:
    """A GGUF file, and the folder with its configuration and its tokenizer."""

    path: Path
    model: GgufModel
    folder: Path

    def write_weights(self) -> None:
        """Dequantise the weights into the folder."""
        print(f"--> reading {self.path}: {', '.join(self.model.weights.kinds())}")
        self.model.write_dequantised(self.folder, _dtype())


def gguf_file(flags: dict[str, Any]) -> Path | None:
    """Return the GGUF file that ``--model_name`` names; None if it names something else."""
    path = Path(str(flags.get("model_name", ""))).expanduser()
    return path.resolve() if path.suffix.lower() == SUFFIX and not path.is_dir() else None


@contextmanager
def opened(path: Path, adapter: Path | None) -> Iterator[OpenedFile]:
    """Read a file's header, and remove what was made of it in the end.

    Args:
        path: the file.
        adapter: the folder of the adapter that is measured, which there must be none of.

    Raises:
        UsageError: if it cannot be read, or there is no space for its weights.
    """
    if adapter is not None:
        why = "an adapter needs its base model as a folder"
        fix = f"{command('convert', path, '--out', 'DIR')}, then --model_name DIR"
        raise refusal(f"--adapter with the GGUF file {path}", why, fix)
    if not path.is_file():
        raise UsageError([missing_path(path, "name a file: --model_name FILE.gguf")])
    model = GgufModel(path)
    size = sum(torch.Size(shape).numel() for shape in model.weights.shapes.values())
    size, free = size * _dtype().itemsize, free_bytes(Path(gettempdir()))
    if free is not None and size > free:
        why = f"dequantised they take {amount(size)}, and {amount(free)} are free"
        what = f"not enough disk space in {gettempdir()} for the weights of {path}"
        raise refusal(what, why, "set another place for temporary files: TMPDIR=DIR")
    with TemporaryDirectory(prefix="gguf-") as name:
        folder = Path(name).resolve()
        model.write_configuration(folder, _dtype())
        yield OpenedFile(path, model, folder)


def _dtype() -> torch.dtype:
    """Return the dtype that weights are computed with."""
    return torch.bfloat16 if device_type() == "cuda" else torch.float32
