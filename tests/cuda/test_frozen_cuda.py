"""The Triton kernels compute what their functions compute on a CPU in float64, at odd sizes too.

Rounding to bfloat16 is off by up to 2**-9 (float16 2**-12) of a value. Both are given the same
inputs in that dtype, and sums are in float32, so a result is off by its own rounding and by those
of values inside.
"""

import copy
from typing import Any

import peft
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local.kernels import (
    attention,
    frozen,
    norm,
    packed_attention,
    rotary,
    rotated_attention,
    swiglu,
    vocabulary_loss,
)
from llama_recipes_local.kernels.lora import thin
from llama_recipes_local.kernels.lora.dropout import Dropout

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
UNITS = {torch.bfloat16: 2**-9, torch.float16: 2**-12}
HALF = [torch.bfloat16, torch.float16]
LENGTHS = (50, 14, 1, 63)


def exact(x: torch.Tensor) -> torch.Tensor:
    return x.double().cpu()


def check(got: Any, want: Any, dtype: torch.dtype, roundings: int = 1) -> None:
    """Compare tensors on the device with exact ones; ``roundings`` is of values inside."""
    got, want = ((x,) if isinstance(x, torch.Tensor) else x for x in (got, want))
    for one, two in zip(got, want, strict=True):
        off, largest = (exact(one).flatten() - two.detach().flatten()).abs().max(), two.abs().max()
        assert off < (1 + roundings) * UNITS[dtype] * largest


def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(shape, device="cuda").to(dtype)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
@pytest.mark.parametrize(
    ("tokens", "features", "ranks", "widths"),
    [
        (77, 200, (24,), (136,)),
        (1, 16, (1,), (1,)),
        (129, 1001, (8, 70, 16), (320, 33, 64)),
        (256, 256, (16, 16, 16), (256, 128, 128)),
    ],
)
def test_thin_products(
    tokens: int,
    features: int,
    ranks: tuple[int, ...],
    widths: tuple[int, ...],
    share: float,
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    dropout, scales = Dropout(share, 2**31 - 2), (2.0, 0.5, 3.0)[: len(ranks)]
    x, of_outputs = (
        random(tokens, features, dtype=dtype),
        [random(tokens, n, dtype=dtype) for n in widths],
    )
    low, of_low = (random(tokens, sum(ranks) + 5, dtype=dtype)[:, 2:-3] for _ in range(2))
    matrices = [random(rank, features, dtype=torch.float32) for rank in ranks]
    others = [random(*each, dtype=torch.float32) for each in zip(widths, ranks, strict=True)]
    a, b = thin.pack(matrices, others, dtype)
    want = thin.pack(*([exact(each) for each in both] for both in (matrices, others)), dtype)
    assert torch.equal(a.cpu(), want[0])
    assert all(torch.equal(one.cpu(), two) for one, two in zip(b, want[1], strict=True))
    (wide_a, *wide_b), outputs = map(exact, (a, *b)), [exact(each) for each in of_outputs]
    check(
        thin.product([x], [a], (2.0,), dropout),
        thin.product([exact(x)], [wide_a], (2.0,), dropout),
        dtype,
    )
    check(thin.product(of_outputs, b, scales), thin.product(outputs, wide_b, scales), dtype)
    check(thin.expansion(low, b, scales), thin.expansion(exact(low), wide_b, scales), dtype)
    check(
        thin.expansion(of_low, [a], (2.0,), dropout),
        thin.expansion(exact(of_low), [wide_a], (2.0,), dropout),
        dtype,
    )
    got = thin.gradients(of_low, x, low, of_outputs, scales, ranks, dropout)
    given = exact(of_low), exact(x), exact(low), outputs
    check(got, thin.gradients(*given, scales, ranks, dropout), torch.float16)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("features", [24, 576, 4096, 5120])
def test_norm(features: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    stream, branch, of_total, of_normed = (random(3, 7, features, dtype=dtype) for _ in range(4))
    weight = random(features, dtype=dtype)
    for added in (branch, None):
        got = norm._forward(stream, added, weight, 1e-5)
        check(got[0], exact(stream) if added is None else exact(stream) + exact(added), dtype)
        want = norm._forward(exact(got[0]), None, exact(weight), 1e-5)  # of the rounded sum
        check(got[1:], want[1:], dtype, roundings=2)
        scale = exact(got[2]).view(3, 7)
        inputs = (exact(of_total), exact(of_normed), exact(got[0]), scale, exact(weight))
        want = norm._backward(*inputs, trained=True)
        for trained in (False, True):
            found = norm._backward(of_total, of_normed, got[0], got[2], weight, trained)
            check(found[: 1 + trained], want[: 1 + trained], dtype)
            assert trained or found[1] is None


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(4, 4, 64), (9, 3, 64), (32, 8, 128)])
@pytest.mark.parametrize("angle_rows", [1, 2])
def test_rotary(heads: int, kv_heads: int, width: int, angle_rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    query = random(2, 5, heads, width, dtype=dtype).requires_grad_()
    key = random(2, 5, kv_heads, width, dtype=dtype).requires_grad_()
    angles = torch.rand(angle_rows, 5, width // 2, device="cuda").repeat(1, 1, 2) * 6
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    inputs = [exact(x.detach()).requires_grad_() for x in (query, key)]
    got = rotary.rotate(query, key, cos, sin)
    want = rotary.rotate(*inputs, exact(cos), exact(sin))
    check([x.detach() for x in got], [x.detach() for x in want], dtype)
    weights = [random(*x.shape, dtype=dtype) for x in got]
    found = torch.autograd.grad(got, (query, key), weights)
    check(found, torch.autograd.grad(want, inputs, [exact(w) for w in weights]), dtype)


@pytest.mark.parametrize("dtype", HALF)
def test_swiglu(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    gate, up, gradient = (random(50, 77, dtype=dtype) for _ in range(3))
    wide = exact(gate), exact(up)
    check(swiglu.swiglu(gate, up), swiglu.swiglu(*wide), dtype)
    want = swiglu.swiglu_backward(exact(gradient), *wide, again=True)
    check(swiglu.swiglu_backward(gradient.clone(), gate, up, again=True), want, dtype)
    found = swiglu.swiglu_backward(gradient.clone(), gate, up, again=False)
    check(found[:2], want[:2], dtype)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("vocabulary", [500, 32001, 128256])
def test_vocabulary_loss(vocabulary: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = random(70, vocabulary, dtype=dtype) * 3
    labels = torch.randint(vocabulary, (70,), device="cuda")
    want = vocabulary_loss._loss_and_gradient(exact(logits), labels.cpu())
    loss, gradient = vocabulary_loss._loss_and_gradient(logits.clone(), labels)
    assert loss.shape == (70,)
    torch.testing.assert_close(loss.double().cpu(), want[0].double(), rtol=5e-6, atol=5e-6)
    check(gradient, want[1], dtype)


def make_model(dtype: torch.dtype, **config: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 500,
        "attn_implementation": attention.NAME,
    }
    attention.register()
    return LlamaForCausalLM(LlamaConfig(**shape | config)).cuda().to(dtype)


def packed_row() -> dict[str, Any]:
    torch.manual_seed(2)
    bounds = torch.tensor([0, *LENGTHS], device="cuda").cumsum(0).int()
    known = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "use_cache": False}
    known |= {"max_length_q": max(LENGTHS), "max_length_k": max(LENGTHS)}
    ids = torch.randint(3, 500, (1, sum(LENGTHS)), device="cuda")
    positions = torch.cat([torch.arange(n) for n in LENGTHS])[None].cuda()
    labels = torch.where(positions % 5 == 0, -100, ids)
    return {"input_ids": ids, "labels": labels, "position_ids": positions, **known}


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "all-linear"])
@pytest.mark.parametrize("rank", [8, 16, 80])
def test_a_model_with_lora_is_as_near_to_float32_as_pefts(
    rank: int, targets: Any, dtype: torch.dtype
) -> None:
    models = [make_model(torch.float32), make_model(dtype), make_model(dtype)]
    frozen.install(models[2])
    losses, gradients = [], []
    for model in models:
        torch.manual_seed(1)
        config = peft.LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules=targets, init_lora_weights=False
        )
        adapted = peft.get_peft_model(copy.deepcopy(model), config).train()
        wide = dtype if model is not models[0] else torch.float32
        with torch.autocast("cuda", dtype=dtype, enabled=wide == dtype):
            loss = adapted(**packed_row(), num_items_in_batch=100.0).loss
        loss.backward()
        losses.append(float(loss))
        gradients.append([p.grad.float() for p in adapted.parameters() if p.grad is not None])
        assert adapted is not None and not frozen.fallbacks(adapted)

    def error(of: list[torch.Tensor]) -> float:
        # not the largest: that of a key's A, whose sums cancel, is chance
        pairs = zip(of, gradients[0], strict=True)
        return sum(((got - want).norm() / want.norm()).item() ** 2 for got, want in pairs) ** 0.5

    assert losses[2] == pytest.approx(losses[0], rel=2e-3)
    assert error(gradients[2]) < 1.25 * error(gradients[1])


@pytest.mark.parametrize("dtype", HALF)
def test_rotary_positions_and_attention_are_the_same_as_one_function(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By FlashAttention, and of short documents: gradients of long ones are summed in any order."""
    monkeypatch.setattr(packed_attention, "applies", lambda *_: False)
    attend, calls, results = rotated_attention.attend, [], []

    def counted(*args: Any) -> torch.Tensor:
        calls.append(args)
        return attend(*args)

    monkeypatch.setattr(rotated_attention, "attend", counted)
    for apart in (False, True):
        if apart:
            monkeypatch.setattr(rotated_attention, "applies", lambda *_: False)
        model = make_model(dtype).train()
        frozen.install(model)
        loss = model(**packed_row(), num_items_in_batch=100.0).loss
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters())])
    assert len(calls) == 2
    assert all(map(torch.equal, *results))
