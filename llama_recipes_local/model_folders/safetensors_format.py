"""The export format ``safetensors``: a folder in the Hugging Face layout."""

from dataclasses import dataclass
from pathlib import Path

from llama_recipes_local.errors import Problem
from llama_recipes_local.model_folders.auxiliary_files import copy_auxiliary_files
from llama_recipes_local.model_folders.exported_model import ExportedModel
from llama_recipes_local.model_folders.output_folder import check_free_space
from llama_recipes_local.model_folders.save import write_config, write_weights


@dataclass(frozen=True)
class SafetensorsExport:
    """A model to be written as safetensors."""

    model: ExportedModel

    def check(self, out: Path) -> list[Problem]:
        """Return a problem if there is not enough disk space for the weights."""
        return check_free_space(out, self.model.size())

    def written_tokenizer(self) -> None:
        """Return nothing: its files are copied."""

    def write(self, folder: Path) -> None:
        """Write weights, configuration, tokenizer and licence; one tensor is in memory."""
        model = self.model
        write_weights(folder, model.weights, model.weight)
        write_config(model.source, folder, without=model.config_removed, **model.config_changes)
        copy_auxiliary_files(model.source, folder, model.tokenizer)
        if model.tokenizer != model.source:
            print(f"--> the tokenizer is copied from {model.tokenizer}")

    def read_back(self, folder: Path) -> None:
        """Return nothing: the weights are copied as they are."""
