"""A small Llama with grouped heads, and rows of two lengths."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local.kernels import attention


@pytest.fixture
def make_base() -> Callable[..., Any]:
    """Makes the same model each time, with the given attention."""
    attention.register()

    def make(kernel: str = attention.NAME, **changes: Any) -> LlamaForCausalLM:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=100,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            attn_implementation=kernel,
            **changes,
        )
        return LlamaForCausalLM(config)

    return make


@pytest.fixture
def padded() -> dict[str, torch.Tensor]:
    """Two rows, the second of which is padded on the right."""
    torch.manual_seed(1)
    ids, mask = torch.randint(3, 100, (2, 11)), torch.ones(2, 11, dtype=torch.long)
    mask[1, 7:] = 0
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": ids.masked_fill(mask == 0, -100),
    }


@pytest.fixture
def documents() -> list[torch.Tensor]:
    torch.manual_seed(2)
    return [torch.randint(3, 100, (1, length)) for length in (4, 9, 1, 6)]
