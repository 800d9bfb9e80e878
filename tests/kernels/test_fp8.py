"""Frozen weights in fp8: how near they are, and that a model trains on them as it did before."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local.kernels import attention, frozen
from llama_recipes_local.kernels.fp8.linear import Fp8Linear
from llama_recipes_local.kernels.fp8.scaled_rows import (
    LARGEST,
    Rows,
    product,
    quantize,
    side_by_side,
)
from llama_recipes_local.kernels.fp8.store import keep_in_fp8
from llama_recipes_local.kernels.lora import layers, products

LAYERS = 2


def llama(**changes: Any) -> Any:
    attention.register()
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "hidden_size": 128,
        "intermediate_size": 208,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 300,
        "use_cache": False,
        "attn_implementation": "documents",
    }
    return LlamaForCausalLM(LlamaConfig(**settings | changes))


def with_lora(model: Any, targets: Any = "all-linear") -> Any:
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_dropout=0.0, init_lora_weights=False, target_modules=targets)
    return get_peft_model(model, config).train()


def trained(model: Any) -> tuple[float, torch.Tensor]:
    """Return the loss on fixed rows, and all gradients of the adapter."""
    ids = torch.randint(0, 300, (2, 40), generator=torch.Generator().manual_seed(2))
    loss = model(input_ids=ids, labels=ids, num_items_in_batch=78.0).loss
    loss.backward()
    found = [p.grad.flatten() for p in model.parameters() if p.requires_grad]
    return float(loss.detach()), torch.cat(found)


def test_a_value_is_off_by_a_sixteenth_of_itself_at_most() -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 1000) * torch.tensor([1e-4, 1.0, 3.0, 1e4, 1e-8, 1.0, 1.0])[:, None]
    x[6] = 0
    made = quantize(x)
    assert made.scales is not None
    error = (made.wide() - x).abs()
    smallest = 2.0**-10 * made.scales[:, None]  # half a step of the smallest numbers
    assert (error <= torch.maximum(x.abs() / 16, smallest) * (1 + 1e-5)).all()
    assert torch.equal(made.wide()[6], torch.zeros(1000))
    largest = made.values[:6].float().abs().amax(1)
    assert torch.equal(largest, torch.full((6,), LARGEST))


def test_parts_share_a_rows_scale_and_are_multiplied_by_their_factors() -> None:
    torch.manual_seed(0)
    parts = torch.randn(5, 16), torch.randn(5, 32) * 10
    factors = torch.rand(16), torch.rand(32)
    made = quantize(*parts, factors=factors)
    whole = torch.cat([part * factor for part, factor in zip(parts, factors, strict=True)], dim=1)
    assert torch.equal(made.values.view(torch.uint8), quantize(whole).values.view(torch.uint8))


def test_a_product_is_that_of_its_values() -> None:
    torch.manual_seed(0)
    x, weight = quantize(torch.randn(9, 48)), quantize(torch.randn(32, 48))
    want = x.wide(torch.float64) @ weight.wide(torch.float64).T
    got = product(x, weight, torch.float32).double()
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_weights_beside_each_other_multiply_as_one_after_another() -> None:
    """As in a backward pass: the weights' scales are multiplied into the gradients."""
    torch.manual_seed(0)
    weights = tuple(quantize(torch.randn(n, 64)) for n in (32, 16, 48))
    gradients = [torch.randn(5, len(weight.values)) for weight in weights]
    scales = tuple(weight.scales for weight in weights if weight.scales is not None)
    got = product(
        quantize(*gradients, factors=scales), Rows(side_by_side(weights), None), torch.float32
    )
    want = sum(g @ weight.wide() for g, weight in zip(gradients, weights, strict=True))
    assert (got - want).norm() < 0.05 * torch.as_tensor(want).norm()


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "all-linear", ["down_proj"]])
@pytest.mark.parametrize("kernels", [True, False])
def test_a_model_trains_as_without(targets: Any, kernels: bool) -> None:
    base = llama()
    want_loss, want = trained(with_lora(copy.deepcopy(base), targets))
    keep_in_fp8(base, adapted=True)
    if kernels:
        frozen.install(base)
    loss, gradient = trained(with_lora(base, targets))
    assert loss == pytest.approx(want_loss, rel=5e-3)
    assert F.cosine_similarity(gradient, want, dim=0) > 0.97
    assert not torch.equal(gradient, want)


def test_all_layers_are_computed_by_the_kernels() -> None:
    model = llama()
    keep_in_fp8(model, adapted=True)
    assert frozen.fallbacks(with_lora(model)) == {}
    found = [layers.read(module) for module in model.modules() if isinstance(module, Fp8Linear)]
    assert len(found) == 7 * LAYERS and not any(isinstance(each, str) for each in found)


def test_recomputation_changes_nothing() -> None:
    results = []
    for recomputes in (False, True):
        model = llama()
        keep_in_fp8(model, adapted=True)
        frozen.install(model)
        if recomputes:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        results.append(trained(with_lora(model)))
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])


def test_weights_are_transposed_once_for_several_gradients_and_never_for_outputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = tuple(quantize(torch.randn(32, 64)) for _ in range(2))
    calls: list[int] = []

    def counted(given: tuple[Rows, ...]) -> torch.Tensor:
        calls.append(len(given))
        return side_by_side(given)

    monkeypatch.setattr(products.fp8, "side_by_side", counted)
    held = products.Eight(weights, torch.float32).with_weights()
    held.outputs(products.Given((torch.randn(5, 64),)), None)
    assert calls == []
    gradients = products.Given((torch.randn(5, 32), torch.randn(5, 32)))
    first, second = (held.input_gradient(gradients, None) for _ in range(2))
    assert calls == [2] and torch.equal(first, second)


def test_weights_take_a_byte_an_element_and_casts_leave_them() -> None:
    model = llama()
    before = model.model.layers[0].mlp.up_proj
    keep_in_fp8(model, adapted=True)
    made = model.model.layers[0].mlp.up_proj
    assert made.weight.shape == before.weight.shape and made.weight.dtype == torch.uint8
    wide = made.rows().wide()
    model.to(torch.bfloat16)
    assert torch.equal(made.rows().wide(), wide)
    assert (wide - before.weight).norm() < 0.04 * before.weight.norm()


def test_an_adapter_is_saved_as_without(tmp_path: Any) -> None:
    saved = []
    for fp8 in (False, True):
        model = llama()
        if fp8:
            keep_in_fp8(model, adapted=True)
        adapted = with_lora(model)
        adapted.save_pretrained(tmp_path / str(fp8))
        saved.append(PeftModel.from_pretrained(llama(), tmp_path / str(fp8)).state_dict())
    assert saved[0].keys() == saved[1].keys()
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])


def test_it_generates_with_a_cache() -> None:
    model = llama(use_cache=True)
    ids = torch.arange(8)[None]
    plain = copy.deepcopy(model)
    keep_in_fp8(model, adapted=True)
    frozen.install(model)
    got, want = (m.eval()(input_ids=ids, use_cache=True).logits for m in (model, plain))
    assert F.cosine_similarity(got.flatten(), want.flatten(), dim=0) > 0.98
    assert model.generate(input_ids=ids, max_new_tokens=3, do_sample=False).shape == (1, 11)


def test_what_is_trained_or_of_another_size_is_not_stored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = llama(intermediate_size=100).requires_grad_(False)
    model.model.layers[1].requires_grad_(True)
    keep_in_fp8(model, adapted=False)
    kinds = {name for name, module in model.named_modules() if isinstance(module, Fp8Linear)}
    attention_of_first = {f"model.layers.0.self_attn.{name}_proj" for name in "qkvo"}
    assert kinds == attention_of_first
    kept, used = "frozen in fp8", "trained and multiplied in fp8"
    said = f"4 linear layers {kept}, 4 linear layers {used}, 6 of a size"
    assert said in capsys.readouterr().out
