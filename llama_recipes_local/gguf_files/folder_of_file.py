"""A GGUF file's model as a folder in the Hugging Face layout."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llama_recipes_local.errors import door
from llama_recipes_local.gguf_files.llama_tensors import OUTPUT
from llama_recipes_local.gguf_files.metadata import ARCHITECTURE_KEY, Metadata
from llama_recipes_local.gguf_files.reading_weights import FileWeights, frequency_factors
from llama_recipes_local.gguf_files.shape import Shape
from llama_recipes_local.gguf_files.tokenizer_folder import write_tokenizer
from llama_recipes_local.gguf_files.vocabulary import Vocabulary
from llama_recipes_local.model_folders.finite_weights import finite
from llama_recipes_local.model_folders.save import write_weights

if TYPE_CHECKING:
    from gguf import GGUFReader

_MAGIC = b"GGUF"


def _open(path: Path) -> "GGUFReader":
    """Open a file; for one that ends early, raise an error that says so.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not whole.
    """
    from gguf import GGUFReader

    with path.open("rb") as file:
        begin = file.read(len(_MAGIC))
    if begin != _MAGIC:
        found = f"it begins with {begin!r}, not with {_MAGIC!r}"
        raise ValueError(found if begin else "it is empty")
    try:
        return GGUFReader(path)
    except (IndexError, KeyError, ValueError) as error:
        why = f"its {path.stat().st_size:,} bytes are not what its header says"
        raise ValueError(f"{why}: the copy did not end, or the file is damaged") from error


class GgufModel:
    """A Llama in a GGUF file.

    Attributes:
        header: the file's values by key, except the architecture.
        unkept: keys among them that a folder has no place for.
        shape: its sizes.
        vocabulary: its tokenizer.
        weights: its weights, by their names in a folder.
    """

    def __init__(self, path: Path) -> None:
        """Read the file's header.

        Raises:
            UsageError: if the file cannot be read, or holds no Llama of a supported kind.
        """
        with door(f"{path} cannot be read as GGUF", "copy the file again"):
            reader = _open(path)
            values = {key: field.contents() for key, field in reader.fields.items()}
        self._path = path
        metadata = Metadata(values)
        self.unkept = metadata.unkept
        self.header = {
            key: each
            for key, each in values.items()
            if key != ARCHITECTURE_KEY and not key.startswith("GGUF.")
        }
        names = {tensor.name for tensor in reader.tensors}
        self.shape: Shape = metadata.shape(
            OUTPUT not in names,
            frequency_factors(reader.tensors),
            attention_bias="blk.0.attn_q.bias" in names,
            mlp_bias="blk.0.ffn_up.bias" in names,
        )
        self.vocabulary: Vocabulary = metadata.vocabulary()
        self.weights = FileWeights(reader.tensors, self.shape)

    def write(self, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        """Write the model as a folder; one tensor is in memory.

        Args:
            folder: an empty folder.
            dtype: of the weights.
        """
        self.write_dequantised(folder, dtype)
        self.write_configuration(folder, dtype)

    def write_dequantised(self, folder: Path, dtype: torch.dtype) -> None:
        """Write the weights."""
        planned = {
            name: torch.empty(shape, dtype=dtype, device="meta")
            for name, shape in self.weights.shapes.items()
        }
        write_weights(
            folder, planned, lambda name: finite(name, self.weights(name).to(dtype), self._path)
        )

    def write_configuration(self, folder: Path, dtype: torch.dtype) -> None:
        """Write the configurations and the tokenizer."""
        from transformers import GenerationConfig

        known = self.vocabulary
        stops: Any = [known.end, *known.other_ends] if known.other_ends else known.end
        ids = {"bos_token_id": known.begin, "pad_token_id": known.padding}
        self.shape.config(dtype, eos_token_id=known.end, **ids).save_pretrained(folder)
        GenerationConfig(eos_token_id=stops, **ids).save_pretrained(folder)
        write_tokenizer(known, folder, self.shape.positions)
