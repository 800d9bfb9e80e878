"""Products in fp8 on a device compute what their functions compute on a CPU, at odd sizes too."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local.kernels import attention, frozen
from llama_recipes_local.kernels.fp8.scaled_rows import Rows, product, quantize, side_by_side
from llama_recipes_local.kernels.fp8.store import keep_in_fp8
from llama_recipes_local.kernels.fp8.swiglu_rows import swiglu_backward_rows, swiglu_rows
from llama_recipes_local.kernels.lora import thin
from llama_recipes_local.kernels.lora.dropout import Dropout
from llama_recipes_local.kernels.swiglu import swiglu, swiglu_backward

HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (9, 0)
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not HOPPER, reason="needs a CUDA device that multiplies in fp8"),
]


def on_cpu(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(x.cpu() for x in tensors)


def check_values(got: Rows, want: Rows) -> None:
    """Compare matrices; a value near a tie may be rounded to its neighbour, an eighth away.

    A sixteenth of a row of bfloat16 are ties where its scale is a power of two.
    """
    different = got.values.cpu().view(torch.uint8) != want.values.view(torch.uint8)
    assert different.sum() <= 3 + 0.07 * different.numel()
    torch.testing.assert_close(got.values.cpu().float(), want.values.float(), rtol=0.126, atol=0.01)


@pytest.mark.parametrize("widths", [(200,), (4096, 1024, 1024), (1001, 14336), (8, 16, 24)])
@pytest.mark.parametrize("scaled", [False, True])
def test_rows_are_quantised_side_by_side(widths: tuple[int, ...], scaled: bool) -> None:
    torch.manual_seed(0)
    wide = [torch.randn(77, width + 3, device="cuda").bfloat16() for width in widths]
    parts = [x[:, 1:-2] for x in wide]
    parts[0][5] = 0
    factors = [torch.rand(width, device="cuda") + 0.1 for width in widths] if scaled else []
    got = quantize(*parts, factors=tuple(factors))
    want = quantize(*on_cpu(*parts), factors=on_cpu(*factors))
    assert got.scales is not None and want.scales is not None
    torch.testing.assert_close(got.scales.cpu(), want.scales, rtol=1e-6, atol=0)
    check_values(got, want)


def test_weights_are_transposed_beside_each_other() -> None:
    torch.manual_seed(0)
    weights = tuple(quantize(torch.randn(n, 208, device="cuda")) for n in (96, 16, 304))
    got = side_by_side(weights).view(torch.uint8)
    assert torch.equal(got, torch.cat([w.values.view(torch.uint8) for w in weights]).T)


@pytest.mark.parametrize(("rows", "columns", "features"), [(1, 64, 32), (77, 208, 1008)])
@pytest.mark.parametrize("scaled", [False, True])
def test_product(rows: int, columns: int, features: int, scaled: bool) -> None:
    torch.manual_seed(0)
    x, weight = (quantize(torch.randn(n, columns, device="cuda")) for n in (rows, features))
    if not scaled:
        weight = Rows(weight.values, None)
    got = product(x, weight, torch.bfloat16).cpu().double()
    want = x.wide(torch.float64).cpu() @ weight.wide(torch.float64).cpu().T
    # the result's rounding, 2**-9 of it, and sums that keep some 14 bits: half of that was seen
    assert (got - want).abs().max() < 2**-8 * want.abs().max()


@pytest.mark.parametrize("features", [208, 1001, 11008, 14336])
@pytest.mark.parametrize("wide", [False, True])
def test_swiglu(features: int, wide: bool) -> None:
    torch.manual_seed(0)
    gate, up, gradient = (torch.randn(33, features, device="cuda").bfloat16() for _ in range(3))
    factors = tuple(torch.rand(features, device="cuda") + 0.1 for _ in range(2))
    hidden, eight = swiglu_rows(gate, up, wide)
    own = swiglu(gate, up)
    assert hidden.shape == own.shape and (not wide or torch.equal(hidden, own))
    check_values(eight, quantize(own.cpu()))
    want, want_hidden = swiglu_backward(gradient.clone(), gate, up, True)[:2], own
    both, eight, hidden = swiglu_backward_rows(gradient, gate, up, factors, wide, True)
    check_values(eight, quantize(*on_cpu(*want), factors=on_cpu(*factors)))
    torch.testing.assert_close(hidden, want_hidden)
    if wide:
        torch.testing.assert_close(both, want)


def test_a_kernel_is_launched_for_what_it_is_given() -> None:
    """Compiled for aligned rows first, for others next, and again."""
    torch.manual_seed(0)
    for first in (0, 1, 0, 8, 1):
        for width in (256, 17, 1, 256):
            x = torch.randn(5, 300, device="cuda").bfloat16()[:, first : first + width]
            check_values(quantize(x), quantize(x.cpu()))


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_a_thin_product_is_added_in_place(share: float) -> None:
    torch.manual_seed(0)
    low, a, onto = (
        torch.randn(shape, device="cuda").bfloat16() for shape in ((77, 16), (16, 201), (77, 201))
    )
    dropout = Dropout(share, 5)
    want = onto.cpu().double()
    thin.expansion(low.cpu().double(), [a.cpu().double()], [2.0], dropout, onto=[want])
    (got,) = thin.expansion(low, [a], [2.0], dropout, onto=[onto])
    assert got is onto
    assert (got.cpu().double() - want).abs().max() < 2**-8 * want.abs().max()


def trained(targets: Any, fp8: bool, seed: int = 0) -> tuple[float, torch.Tensor]:
    torch.manual_seed(seed)
    attention.register()
    config = LlamaConfig(
        hidden_size=512,
        intermediate_size=1040,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        vocab_size=1000,
        attn_implementation="documents",
    )
    model: Any = LlamaForCausalLM(config).requires_grad_(False).bfloat16().cuda()
    if fp8:
        keep_in_fp8(model, adapted=True)
    frozen.install(model)
    torch.manual_seed(1)
    settings = LoraConfig(r=8, lora_dropout=0.05, init_lora_weights=False, target_modules=targets)
    adapted = get_peft_model(model, settings).train()
    ids = torch.randint(0, 1000, (2, 77), device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        loss = adapted(input_ids=ids, labels=ids, num_items_in_batch=152.0).loss
    loss.backward()
    grads = [p.grad.flatten() for p in adapted.parameters() if p.grad is not None]
    return loss.item(), torch.cat(grads).double()


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "all-linear", ["down_proj"]])
def test_a_model_trains_as_in_bfloat16(targets: Any) -> None:
    (loss, gradient), (want_loss, want) = (trained(targets, fp8) for fp8 in (True, False))
    assert loss == pytest.approx(want_loss, rel=5e-3)
    # each product's factors are off by up to 2**-4, on average 2.7% as random signs add up
    assert (gradient - want).norm() < 0.25 * want.norm()
    assert torch.nn.functional.cosine_similarity(gradient, want, dim=0) > 0.97
