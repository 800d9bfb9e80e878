"""New layers on top: the model starts as it was, and is saved and loaded with them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local import models
from llama_recipes_local.models.top_layers import LlamaWithTopLayersForCausalLM
from llama_recipes_local.run import activate, resolution

IDS = torch.arange(3, 20).unsqueeze(0)


@pytest.fixture(params=[False, True], ids=["a head of its own", "tied embeddings"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=request.param,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def load(folder: Path, **flags: Any) -> Any:
    with activate(resolution.resolve(flags)):
        return models.LlamaForCausalLM.from_pretrained(folder)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def trained_a_little(model: Any) -> Any:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    for _ in range(3):
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_the_model_starts_as_it_was_and_learns_at_once(base: Path) -> None:
    model = load(base, top_layers=2)
    assert logits(model).equal(logits(LlamaForCausalLM.from_pretrained(base)))
    model(IDS, labels=IDS).loss.backward()
    learning = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    names = {f"model.top_layers.{n}.linear.{kind}" for n in (0, 1) for kind in ("weight", "bias")}
    assert learning == names


def test_it_is_saved_and_loaded_with_its_layers(base: Path, tmp_path: Path) -> None:
    model = trained_a_little(load(base, top_layers=2))
    model.save_pretrained(tmp_path / "saved")
    expected = logits(model)
    assert (expected - logits(load(base))).abs().max() > 0.01
    again = models.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert logits(again).equal(expected)
    texts = [each.generate(IDS, max_new_tokens=6, do_sample=False) for each in (again, model)]
    assert texts[0].equal(texts[1])


def test_a_model_that_has_layers_keeps_them(base: Path, tmp_path: Path) -> None:
    model = trained_a_little(load(base, top_layers=2))
    model.save_pretrained(tmp_path / "saved")
    for flags in ({"top_layers": 2}, {}, {"use_peft": True}, {"train_only": "last:1"}):
        again = load(tmp_path / "saved", **flags)
        assert isinstance(again, LlamaWithTopLayersForCausalLM)
        assert logits(again).equal(logits(model))


@pytest.mark.parametrize(("pure", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_they_are_held_in_float32_on_bfloat16_weights(
    base: Path, tmp_path: Path, pure: bool, dtype: torch.dtype
) -> None:
    model = load(base, top_layers=1, dtype="bfloat16", pure_bf16=pure)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {dtype}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert logits(trained_a_little(model)).dtype == torch.bfloat16
    model.save_pretrained(tmp_path / "saved")
    again = models.AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.bfloat16)
    assert logits(again).equal(logits(model))
