"""The tiny model's tokenizer, and a small file of each data set."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> Any:
    from llama_recipes_local.models import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)
