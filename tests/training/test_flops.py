"""The operations of a step are those that torch counts, less those no result depends on."""

import peft
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local.training import flops
from llama_recipes_local.training.flops import training_flops

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, VOCABULARY = 32, 64, 2, 4, 2, 100
TOKENS = 24
HEAD = HIDDEN * VOCABULARY
KEYS = HIDDEN // HEADS * KV_HEADS
LAYER = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEYS + 3 * HIDDEN * INNER
ATTENTION = 2 * HIDDEN * LAYERS  # forward, causal: for each squared length


def make_model() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config)


def counted(model: torch.nn.Module) -> int:
    """Return what torch counts: all of the scores' matrix, not its causal half."""
    ids = torch.arange(3, 3 + TOKENS).unsqueeze(0)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    return counter.get_total_flops()


def test_full_fine_tuning_is_six_operations_per_weight_and_token() -> None:
    needed = training_flops(make_model())
    assert needed.per_token == 6 * (LAYERS * LAYER + HEAD)
    assert needed.per_squared_length == 3 * ATTENTION
    whole = needed.of(TOKENS, 2 * TOKENS**2)
    # the rotation's frequencies, which eager attention multiplies too, are a per mille
    assert counted(make_model()) == pytest.approx(whole, rel=1e-2)


def test_lora_needs_no_gradient_of_frozen_weights() -> None:
    rank = 4
    config = peft.LoraConfig(r=rank, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(make_model(), config)
    adapters = LAYERS * rank * ((HIDDEN + HIDDEN) + (HIDDEN + KEYS))
    needed = training_flops(model)
    frozen = LAYERS * LAYER + HEAD
    # the first layer's first matrix comes before anything that is trained
    assert needed.per_token == 4 * frozen + 6 * adapters - 2 * HIDDEN * HIDDEN
    assert needed.per_squared_length == 3 * ATTENTION
    model.enable_input_require_grads()
    whole = needed.of(TOKENS, 2 * TOKENS**2)
    assert counted(model) == pytest.approx(whole, rel=2e-2)


def test_a_prefix_needs_the_gradient_of_every_input() -> None:
    config = peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    needed = training_flops(peft.get_peft_model(make_model(), config))
    assert needed.per_token == 4 * (LAYERS * LAYER + HEAD)
    assert needed.per_squared_length == 3 * ATTENTION


def test_frozen_first_layers_are_only_computed_forward() -> None:
    model = make_model()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in model.model.layers[1].parameters():
        parameter.requires_grad_(True)
    needed = training_flops(model)
    assert needed.per_token == 2 * LAYER + 6 * LAYER + 4 * HEAD
    assert needed.per_squared_length == (1 + 3) * ATTENTION // LAYERS


def test_peak_flops_follow_from_the_devices_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "NVIDIA H100 80GB HBM3": 989e12,
        "NVIDIA H100 PCIe": 756e12,
        "NVIDIA H200": 989e12,
        "NVIDIA A100-SXM4-80GB": 312e12,
        "NVIDIA GeForce RTX 2070": None,
    }
    for name, peak in names.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        assert flops.peak_flops(torch.device("cuda")) == peak
    assert flops.peak_flops(torch.device("cpu")) is None
