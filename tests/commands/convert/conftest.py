"""A model whose head is its embedding."""

import shutil
from pathlib import Path

import pytest
import torch
import transformers


@pytest.fixture(scope="module")
def tied_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tied"
    shutil.copytree(tiny_model, folder)
    config = transformers.AutoConfig.from_pretrained(tiny_model, tie_word_embeddings=True)
    torch.manual_seed(2)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder
