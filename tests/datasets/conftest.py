"""The tiny model's tokenizer, alone and with the special tokens of every chat template."""

import copy
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> Any:
    from llama_recipes_local.models import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def chatty(tokenizer: Any) -> Any:
    """The tiny tokenizer, with the special tokens of every format."""
    from llama_recipes_local.datasets.templates import TEMPLATES

    more = copy.deepcopy(tokenizer)
    tokens = [token for template in TEMPLATES.values() for token in template.tokens]
    more.add_special_tokens({"additional_special_tokens": tokens})
    return more
