"""Adapters that PEFT made elsewhere on a base with more rows, as of Chinese LLaMA, equal PEFT's."""

import shutil
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from llama_recipes_local.answers.model_loading import load_model
from llama_recipes_local.answers.model_source import find_source
from llama_recipes_local.commands.merge.command import Merge, merge
from llama_recipes_local.model_folders.save import write_config

ROWS = 1010
IDS = torch.tensor([[5, 7, 1003, 1009, 20, 1001, 33]])


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def base(request: pytest.FixtureRequest, tiny_model: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    if request.param:
        write_config(folder, folder, tie_word_embeddings=True)
        model = LlamaForCausalLM.from_pretrained(folder)
        model.tie_weights()
        model.save_pretrained(folder)
    return folder


def saved_elsewhere(base: Path, folder: Path, whole: list[str]) -> torch.Tensor:
    """Save an adapter by plain PEFT; return its logits."""
    model = LlamaForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(ROWS)
    config = peft.LoraConfig(
        r=2, target_modules=["q_proj"], modules_to_save=whole, task_type="CAUSAL_LM"
    )
    adapted = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
        adapted.save_pretrained(folder)
        return adapted.eval()(IDS).logits


@pytest.mark.parametrize(
    "whole", [["embed_tokens", "lm_head"], ["embed_tokens"], ["lm_head"]], ids="-".join
)
def test_embeddings_that_are_trained_whole_are_taken_once(
    whole: list[str], base: Path, tmp_path: Path
) -> None:
    """PEFT writes each under two names."""
    expected = saved_elsewhere(base, tmp_path / "adapter", whole)
    with torch.no_grad():
        loaded = load_model(find_source(tmp_path / "adapter", model=base))
        torch.testing.assert_close(loaded(IDS).logits, expected, rtol=0, atol=1e-6)
        merge(Merge(adapter=tmp_path / "adapter", model=base, out=tmp_path / "merged"))
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        # the change is added to the weights, and sums are taken in another order
        torch.testing.assert_close(merged(IDS).logits, expected, rtol=0, atol=1e-5)
    assert merged.config.vocab_size == ROWS
