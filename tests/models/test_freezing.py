"""Which weights require a gradient when there is no adapter."""

from pathlib import Path
from typing import Any

import pytest
import torch

from llama_recipes_local import models
from llama_recipes_local.models.freezing import last_layers
from llama_recipes_local.policies import apply_fsdp_checkpointing
from llama_recipes_local.run import activate, resolution

IDS = torch.arange(3, 20).unsqueeze(0)
LAYERS = [f"model.layers.{number}." for number in (0, 1)]
REST = ["lm_head.", "model.embed_tokens.", "model.norm."]


def load(folder: Path, **flags: Any) -> Any:
    with activate(resolution.resolve(flags)):
        return models.LlamaForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, LAYERS + REST),
        ({"train_only": "lm_head"}, ["lm_head."]),
        ({"train_only": "last:1"}, LAYERS[1:]),
        ({"train_only": "last:2"}, LAYERS),
        ({"freeze_layers": True, "num_freeze_layers": 1}, LAYERS[1:] + REST),
        ({"freeze_layers": True, "num_freeze_layers": 2}, REST),
        ({"freeze_layers": True, "use_peft": True}, LAYERS + REST),
        ({"top_layers": 1}, ["model.top_layers."]),
    ],
    ids=str,
)
def test_what_is_trained(flags: dict[str, Any], expected: list[str], tiny_model: Path) -> None:
    model = load(tiny_model, **flags)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {
        name for name, _ in model.named_parameters() if name.startswith(tuple(expected))
    }


def test_embeddings_that_are_resized_stay_frozen(tiny_model: Path) -> None:
    model = load(tiny_model, train_only="last:1")
    model.resize_token_embeddings(1010)
    assert not model.get_input_embeddings().weight.requires_grad
    assert not model.lm_head.weight.requires_grad


@pytest.mark.parametrize(
    ("choice", "number"), [("last:1", 1), ("last:12", 12), ("lm_head", None), ("last:x", None)]
)
def test_last_layers_are_counted(choice: str, number: int | None) -> None:
    assert last_layers(choice) == number


@pytest.mark.parametrize(
    ("flags", "backward"),
    [({"train_only": "lm_head"}, []), ({"train_only": "last:1"}, [1]), ({}, [1, 0])],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_the_backward_pass_ends_at_the_first_trained_layer(
    flags: dict[str, Any], backward: list[int], tiny_model: Path
) -> None:
    model = load(tiny_model, **flags).train()
    model.enable_input_require_grads()  # as main does with activation checkpointing
    model.gradient_checkpointing_enable()
    apply_fsdp_checkpointing(model)
    seen: list[int] = []
    for number, layer in enumerate(model.model.layers):
        layer.register_full_backward_hook(lambda *_, number=number: seen.append(number))
    model(IDS, labels=IDS, use_cache=False).loss.backward()
    assert seen == backward
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
