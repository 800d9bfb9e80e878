"""With ``--fsdp_activation_checkpointing``, layers are computed again in the backward pass."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from llama_recipes_local.policies import apply_fsdp_checkpointing

IDS = torch.arange(3, 20).unsqueeze(0)


@pytest.mark.parametrize(("checkpointing", "times"), [(False, 1), (True, 2)])
def test_a_layer_is_computed_twice(tiny_model: Path, checkpointing: bool, times: int) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_model).train()
    computed = []
    # the start of a layer: computing again ends as soon as all that is missing is there
    model.model.layers[0].input_layernorm.register_forward_hook(lambda *_: computed.append(1))
    if checkpointing:
        apply_fsdp_checkpointing(model)
    model(IDS, labels=IDS).loss.backward()
    assert len(computed) == times
