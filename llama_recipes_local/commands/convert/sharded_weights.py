"""The tensors of the model in a sharded checkpoint, each assembled from its shards when read."""

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
import transformers
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from llama_recipes_local.commands.convert.base_model import BaseModel
from llama_recipes_local.commands.convert.train_params import FIX
from llama_recipes_local.errors import Problem, UsageError, refusal
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders.tensors import shape_mismatches
from llama_recipes_local.models.deferred import empty_model, weight_name

OPTIMIZER = "optim."
# Buffers that older versions of transformers saved; they are computed from the configuration.
FREQUENCIES = ".inv_freq"
# What wrappers insert into the names of upstream's tensors.
_WRAPPERS = re.compile(r"_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.|_orig_mod\.")


class ShardedWeights:
    """A model's tensors: those of a sharded checkpoint, and the base model's that are untrained.

    Attributes:
        planned: meta tensors of their shapes and dtypes, by name.
        untrained: the names of those that are the base model's.
        vocabulary: rows of the embedding.
    """

    def __init__(
        self,
        reader: FileSystemReader,
        metadata: Metadata,
        config: transformers.PreTrainedConfig,
        dtype: torch.dtype | None = None,
        base: BaseModel | None = None,
    ) -> None:
        """Find the tensors of a model with this configuration.

        Args:
            reader: reads the checkpoint.
            metadata: the checkpoint's.
            config: the trained model's.
            dtype: the dtype that the tensors are cast to; None keeps each tensor's.
            base: the model that the run started from; None if the checkpoint has all tensors.

        Raises:
            UsageError: if a tensor is missing, unknown or of another shape.
        """
        self._reader = reader
        self._stored = _by_model_names(metadata)
        plain = empty_model(config)
        embedding = weight_name(plain, plain.get_input_embeddings())
        if embedding in self._stored:
            plain = empty_model(config, self._stored[embedding][1].size[0])
        self.vocabulary: int = plain.config.vocab_size
        shapes = {name: tensor.shape for name, tensor in plain.named_parameters()}
        if config.tie_word_embeddings:
            del shapes[weight_name(plain, plain.get_output_embeddings())]
        self.untrained = base.untrained(plain) & shapes.keys() if base else set()
        trained = {name: shape for name, shape in shapes.items() if name not in self.untrained}
        self._check(trained, plain, Path(reader.path))
        self._base: Mapping[str, torch.Tensor] = {}
        if base and self.untrained:
            self._base = base.tensors({name: shapes[name] for name in self.untrained})
        self._base_dtype = cast(torch.dtype, config.dtype)  # a dtype once transformers has read it
        self.planned = {
            name: torch.empty(shape, dtype=dtype or self._dtype(name), device="meta")
            for name, shape in shapes.items()
        }

    def __call__(self, name: str) -> torch.Tensor:
        """Return a tensor: the base model's, or assembled from the ranks' shards."""
        if name in self.untrained:
            return self._base[name].to(self._base_dtype).to(self.planned[name].dtype)
        key, stored = self._stored[name]
        tensor = torch.empty(stored.size, dtype=self._dtype(name))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that there is only one process
                load({key: tensor}, storage_reader=self._reader, no_dist=True)
        except (CheckpointException, pickle.UnpicklingError) as error:
            raise UsageError([_unreadable(name, Path(self._reader.path), error)]) from error
        return tensor.to(self.planned[name].dtype)

    def _dtype(self, name: str) -> torch.dtype:
        if name in self.untrained:
            return self._base_dtype
        return self._stored[name][1].properties.dtype

    def _check(
        self, shapes: dict[str, torch.Size], plain: transformers.PreTrainedModel, checkpoint: Path
    ) -> None:
        missing = [name for name in shapes if name not in self._stored]
        wrong = shape_mismatches(
            {name: stored.size for name, (_, stored) in self._stored.items()}, shapes
        )
        known = {name for name, _ in plain.named_parameters()}
        unknown = [name for name in self._stored if name not in known]
        mismatches = {"missing": missing, "shape mismatch": wrong, "unexpected": unknown}
        for kind, names in mismatches.items():
            if names:
                what = f"{checkpoint} does not match the model that was named"
                fix = f"{FIX}, or copy the checkpoint again"
                raise refusal(what, f"{kind}: {join_names(names)}", fix)


def _unreadable(name: str, checkpoint: Path, error: BaseException) -> Problem:
    reason = next(filter(None, map(str.strip, str(error).splitlines()[::-1])), repr(error))
    return Problem(
        f"{name} in {checkpoint} cannot be read",
        f"a file is corrupt, or has more than tensors: {reason}",
        "copy the checkpoint again from where it was trained",
    )


def _by_model_names(metadata: Metadata) -> dict[str, tuple[str, TensorStorageMetadata]]:
    """Return each tensor's key and metadata by its name in the model.

    Upstream saves ``{"model": ..., "optim": ...}``, this package the model's tensors next to the
    optimiser's, so upstream's keys have one more level.
    """
    tensors = {
        key: stored
        for key, stored in metadata.state_dict_metadata.items()
        if isinstance(stored, TensorStorageMetadata) and not key.startswith(OPTIMIZER)
    }
    is_upstream = any(key.startswith("model.model.") for key in tensors)
    level = "model." if is_upstream else ""
    named = {_WRAPPERS.sub("", key.removeprefix(level)): key for key in tensors}
    return {
        name: (key, tensors[key]) for name, key in named.items() if not name.endswith(FREQUENCIES)
    }
