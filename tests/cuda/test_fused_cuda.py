"""Fused kernels compute what transformers' own code does, on packed rows and in FSDP's place."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local.kernels import attention
from llama_recipes_local.kernels.fused import install

pytest.importorskip("liger_kernel")
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LENGTHS = (50, 14, 1, 63)


def make_model() -> LlamaForCausalLM:
    attention.register()
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=500,
        attn_implementation=attention.NAME,
    )
    return LlamaForCausalLM(config).cuda().bfloat16()


def packed_row() -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 500, (1, sum(LENGTHS)), device="cuda")
    positions = torch.cat([torch.arange(n) for n in LENGTHS])[None].cuda()
    labels = torch.where(positions == 0, -100, ids)
    return {"input_ids": ids, "labels": labels, "position_ids": positions}


def test_loss_and_gradients_are_those_of_the_unfused_model() -> None:
    plain = make_model()
    exact = copy.deepcopy(plain).float()
    batch = packed_row()
    share = 100.0
    losses, gradients = [], []
    for number, model in enumerate((exact, plain, copy.deepcopy(plain))):
        if number == 2:
            install(model)
        loss = model(**batch, num_items_in_batch=share).loss
        loss.backward()
        losses.append(loss.item())
        gradients.append([p.grad.float() for p in model.parameters()])

    def error(of: list[torch.Tensor]) -> float:
        pairs = zip(of, gradients[0], strict=True)
        return max(((got - want).norm() / want.norm()).item() for got, want in pairs)

    # bfloat16 keeps 8 bits: a relative error of about 2**-8 an operation, for either code
    assert losses[2] == pytest.approx(losses[0], rel=1e-3)
    assert error(gradients[2]) < max(2 * error(gradients[1]), 2e-2)
