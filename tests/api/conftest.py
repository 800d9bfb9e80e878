"""A small run by ``finetune``, whose result several tests read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llama_recipes_local import Result, finetune

SHORT: dict[str, Any] = {
    "use_peft": True,
    "context_length": 64,
    "batch_size_training": 2,
    "num_epochs": 1,
    "max_train_step": 3,
    "max_eval_step": 2,
    "lr": 1e-2,
}


@pytest.fixture(scope="session")
def short_run(tiny_run: dict[str, Any], token_cache: Path) -> dict[str, Any]:
    """The flags of a LoRA of three steps, but for its output folder."""
    return tiny_run | SHORT | {"data_cache": token_cache}


@pytest.fixture(scope="module")
def result(short_run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Result]:
    """What ``finetune`` returned, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield finetune(**short_run, output_dir=tmp_path_factory.mktemp("called") / "run")
    torch.set_num_threads(threads)
