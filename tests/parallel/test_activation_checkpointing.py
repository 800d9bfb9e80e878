"""With ``--fsdp_activation_checkpointing``, layers are computed again in the backward pass."""

from pathlib import Path

import peft
import pytest
import torch
from transformers import LlamaForCausalLM

from llama_recipes_local.policies import apply_fsdp_checkpointing

IDS = torch.arange(3, 20).unsqueeze(0)


@pytest.mark.parametrize(("checkpointing", "times"), [(False, 1), (True, 2)])
def test_a_layer_is_computed_twice(tiny_model: Path, checkpointing: bool, times: int) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_model).train()
    computed = []
    model.model.layers[0].mlp.register_forward_hook(lambda *_: computed.append(1))
    if checkpointing:
        apply_fsdp_checkpointing(model)
    model(IDS, labels=IDS).loss.backward()
    assert len(computed) == times


def test_adapters_get_gradients_though_the_inputs_have_none(tiny_model: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM")).train()
    apply_fsdp_checkpointing(adapted)
    adapted(IDS, labels=IDS).loss.backward()
    trained = [p for name, p in adapted.named_parameters() if "lora_B" in name]
    assert len(trained) == 4
    assert all(parameter.grad.abs().max() > 0 for parameter in trained)
