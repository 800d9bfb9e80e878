"""What an export format is given, and what it must implement."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.errors import Problem
from llama_recipes_local.model_folders.read_back import ReadBack


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """A model to export, its weights read or computed one at a time.

    Attributes:
        source: folder of the model that it was made from, with ``config.json`` and licence.
        tokenizer: folder of its tokenizer.
        weights: a meta tensor of each weight's shape and dtype, by name.
        weight: returns a weight by its name, on the CPU; called again for the certificate.
        config_changes: keys of ``config.json`` with other values than in the source.
        config_removed: keys of the source's ``config.json`` that are left out.
        prompt_template: the file with the run's prompt template, if it has one.
        accepted: checks of the written file that the user accepts the findings of, by name.
    """

    source: Path
    tokenizer: Path
    weights: Mapping[str, torch.Tensor]
    weight: Callable[[str], torch.Tensor]
    config_changes: Mapping[str, Any]
    config_removed: tuple[str, ...] = ()
    prompt_template: Path | None = None
    accepted: Collection[str] = ()

    def size(self) -> int:
        """Return the size of all weights in their dtypes, in bytes."""
        return sum(math.prod(each.shape) * each.element_size() for each in self.weights.values())


class Export(Protocol):
    """A model to be written in a format; nothing has been written yet."""

    def check(self, out: Path, /) -> list[Problem]:
        """Return why it cannot be written to the folder ``out``, such as a lack of disk space."""

    def written_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """Return the tokenizer as the files will hold it; None for no certificate."""

    def write(self, folder: Path, /) -> None:
        """Write the model's files into an empty folder."""

    def read_back(self, folder: Path, /) -> ReadBack | None:
        """Return what was read back from ``folder``, for a certificate; None for no certificate."""
