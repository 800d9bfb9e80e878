"""A Llama whose weights are trained, computed in other functions, is the same Llama.

transformers is the reference, in float64; its norm rounds to float32, which bounds what can be
compared. In fp8, which the CPU does not multiply in, the same numbers are multiplied in float32.
"""

import copy
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local.kernels import frozen, labelled_rows
from llama_recipes_local.kernels.fp8.scaled_rows import LARGEST, Rows, quantize
from llama_recipes_local.kernels.fp8.store import keep_in_fp8
from llama_recipes_local.kernels.fp8.trained_linear import TrainedFp8Linear, drawn_bound
from llama_recipes_local.kernels.fp8.turned import turned
from llama_recipes_local.kernels.full import trained_layers, trained_products
from llama_recipes_local.kernels.lora.products import Given

LAYERS = 2
IDS = torch.arange(34).reshape(2, 17) * 7 % 100
LABELS = torch.where(torch.arange(17) < 7, -100, IDS)
CLOSE = 1e-5


def plain_model(**config: Any) -> Any:
    torch.manual_seed(0)
    shape = {
        "hidden_size": 48,
        "intermediate_size": 112,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 100,
        "use_cache": False,
    }
    model: Any = LlamaForCausalLM(LlamaConfig(**shape | config)).double().train()
    for name, parameter in model.named_parameters():
        if "norm" in name:  # all ones otherwise
            parameter.data.normal_(1.0, 0.2)
    return model


def gradients_of(model: Any, ids: torch.Tensor = IDS) -> dict[str, torch.Tensor]:
    """Take a backward pass, and return all gradients so far, and the loss."""
    labels = LABELS if ids is IDS else ids
    loss = model(input_ids=ids, labels=labels, num_items_in_batch=20.0).loss
    loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return found | {"loss": loss.detach()}


def difference(one: Any, two: Any, passes: int = 1) -> float:
    """Return the largest difference of loss and gradients, as a share of the largest gradient."""
    want, got = ([gradients_of(model) for _ in range(passes)][-1] for model in (one, two))
    assert got.keys() == want.keys()
    return max(((got[n] - want[n]).abs().max() / want[n].abs().max()).item() for n in want)


def checkpointed(model: Any) -> None:
    model.gradient_checkpointing_enable({"use_reentrant": False})


def only(model: Any, *names: str) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(names))


CHANGES: dict[str, Any] = {
    "all": lambda model: None,
    "recomputed": checkpointed,
    "the last layer": lambda model: only(model, f"model.layers.{LAYERS - 1}."),
    "all but the first layer": lambda model: model.model.layers[0].requires_grad_(False),
    "the head": lambda model: only(model, "lm_head."),
    "a norm and a projection": lambda model: only(
        model, "model.norm.", "model.layers.0.self_attn.k", "model.layers.1.mlp.down_proj"
    ),
}


MULTIPLES = pytest.mark.parametrize("multiple", [128, 3], ids=["whole", "labelled rows"])


@MULTIPLES
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("config", [{}, {"mlp_bias": True}, {"tie_word_embeddings": True}], ids=str)
def test_loss_and_gradients_are_transformers(
    config: dict[str, Any], change: str, multiple: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelled_rows, "_MULTIPLE", multiple)
    if change == "the head" and config.get("tie_word_embeddings"):
        pytest.skip("has no parameters of its own")
    plain = plain_model(**config)
    CHANGES[change](plain)
    ours = copy.deepcopy(plain)
    frozen.install(ours)
    assert difference(plain, ours, passes=2) < CLOSE


@MULTIPLES
def test_without_a_label_all_gradients_are_there_and_zero(
    multiple: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks reduce what they have: one without a gradient of the head would reduce less."""
    monkeypatch.setattr(labelled_rows, "_MULTIPLE", multiple)
    model = plain_model()
    frozen.install(model)
    model(input_ids=IDS, labels=torch.full_like(IDS, -100), num_items_in_batch=20.0).loss.backward()
    found = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in found)


def test_norms_are_made_again() -> None:
    plain = plain_model()
    ours = copy.deepcopy(plain)
    frozen.install(ours)
    frozen.remake_norms(ours)
    assert difference(plain, ours) < CLOSE


def test_all_of_it_is_computed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    for module, name in (
        (trained_layers, "project"),
        (trained_layers, "mlp"),
        (frozen, "add_and_norm"),
        (frozen, "vocabulary_loss"),
    ):
        function = getattr(module, name)

        def counted(*args: Any, function: Any = function, name: str = name) -> Any:
            called.append(name)
            return function(*args)

        monkeypatch.setattr(module, name, counted)
    model = plain_model()
    frozen.install(model)
    gradients_of(model)
    norms = 2 * LAYERS + 1
    parts = ["project"] * 2 * LAYERS + ["mlp"] * LAYERS + ["add_and_norm"] * norms
    assert sorted(called) == sorted([*parts, "vocabulary_loss"])
    assert frozen.fallbacks(model) == {}


def test_what_has_a_bias_is_left_to_transformers() -> None:
    model = plain_model(attention_bias=True)
    frozen.install(model)
    assert frozen.fallbacks(model) == {"their weights are trained": 4 * LAYERS}


def test_a_second_micro_batch_is_added_by_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient of its own for it would be as large as the model."""
    model = plain_model()
    frozen.install(model)
    weight = model.model.layers[0].mlp.down_proj.weight
    gradients_of(model)
    first, place = weight.grad.clone(), weight.grad.data_ptr()
    found: list[Any] = []
    added = trained_products._added

    def recorded(*args: Any) -> Any:
        found.append(added(*args))
        return found[-1]

    monkeypatch.setattr(trained_products, "_added", recorded)
    gradients_of(model)
    assert found == [None] * 7 * LAYERS
    assert weight.grad.data_ptr() == place
    torch.testing.assert_close(weight.grad, 2 * first, rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", ["register_hook", "register_post_accumulate_grad_hook"])
def test_a_hook_sees_the_gradient_of_its_micro_batch(kind: str) -> None:
    model = plain_model()
    frozen.install(model)
    weight = model.model.layers[0].self_attn.q_proj.weight
    seen: list[torch.Tensor] = []

    def hook(given: torch.Tensor) -> None:
        seen.append((given if kind == "register_hook" else given.grad).clone())

    getattr(weight, kind)(hook)
    for _ in range(2):
        gradients_of(model)
    times = 1 if kind == "register_hook" else 2  # the second one is what is there after it
    torch.testing.assert_close(seen[1], times * seen[0], rtol=1e-9, atol=0)


def in_fp8(**config: Any) -> tuple[Any, Any]:
    """Return a model in float32, and the same one multiplied in fp8."""
    plain = plain_model(**config).float()
    eight = copy.deepcopy(plain)
    keep_in_fp8(eight, adapted=False)
    return plain, eight


@pytest.mark.parametrize("tokens", [(2, 17), (1, 16), (3, 1)], ids=str)
@pytest.mark.parametrize("kernels", [True, False])
def test_in_fp8_gradients_point_as_without(kernels: bool, tokens: tuple[int, int]) -> None:
    plain, eight = in_fp8()
    assert sum(type(module) is TrainedFp8Linear for module in eight.modules()) == 7 * LAYERS
    if kernels:
        frozen.install(eight)
    ids = torch.randint(0, 100, tokens, generator=torch.Generator().manual_seed(2))
    want, got = gradients_of(plain, ids), gradients_of(eight, ids)
    assert got.keys() == want.keys()
    assert float(got["loss"]) == pytest.approx(float(want["loss"]), rel=5e-3)
    for name in want.keys() - {"loss"}:
        # a factor is off by up to 2**-4, on average 2.7%; some such products are behind another
        one, two = got[name].flatten(), want[name].flatten()
        assert two.norm() == 0 or F.cosine_similarity(one, two, dim=0) > 0.98
    weight = "model.layers.0.mlp.up_proj.weight"
    assert tokens[1] == 1 or not torch.equal(got[weight], want[weight])


def test_in_fp8_recomputation_changes_nothing_and_kernels_little() -> None:
    _, eight = in_fp8()
    models = [copy.deepcopy(eight) for _ in range(3)]
    for model in models[:2]:
        frozen.install(model)
    checkpointed(models[1])

    def of(model: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(4)  # of the weights' roundings
        return gradients_of(model)

    fused, again, modules = map(of, models)
    for name in fused:
        assert torch.equal(fused[name], again[name])
        # gradients of layers that read the same input have a row's scale together in one of them,
        # and their weights are rounded alike
        assert (fused[name] - modules[name]).norm() < 0.15 * modules[name].norm()


def products_in_fp8() -> tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return two weights' products, an input, and gradients of both outputs, side by side."""
    torch.manual_seed(0)
    tokens = torch.logspace(-3, 2, 37)[:, None]  # of very different sizes
    weights = tuple(torch.randn(n, 64) * torch.rand(n, 1) for n in (32, 16))
    x, gradient = torch.randn(37, 64) * tokens.flip(0), torch.randn(37, 48)
    return trained_products.Eight(weights, torch.float32), x, gradient, torch.cat(weights)


def test_in_fp8_products_are_those_of_their_values() -> None:
    """The three products, in float64; each factor is off by 2.7% on average, a sum by no more."""
    own, x, gradient, weight = products_in_fp8()
    given = own.given(x)
    outputs = torch.cat(own.outputs(given), dim=1)
    ready = own.ready(Given(gradient.split([32, 16], dim=1)))
    exact = [each.double() for each in (x, gradient, weight)]
    for got, want in (
        (outputs, exact[0] @ exact[2].T),
        (own.input_gradient(ready), exact[1] @ exact[2]),
        (torch.cat(own.weight_gradients(ready, given)), exact[1].T @ exact[0]),
    ):
        assert got.dtype == torch.float32 and got.shape == want.shape
        assert (got - want).norm() < 0.05 * want.norm()


def test_weights_gradients_do_not_share_a_scale() -> None:
    """Gradients of q and k are smaller than those of v, far smaller than what fp8 spans."""
    own, x, gradient, _ = products_in_fp8()
    given = own.given(x)
    own.outputs(given)
    parts = gradient[:, :32], gradient[:, 32:] * 1e-6
    _, small = own.weight_gradients(own.ready(Given(parts)), given)
    want = parts[1].double().T @ x.double()
    assert (small - want).norm() < 0.05 * want.norm()


@pytest.mark.parametrize("rows", [16, 37])
def test_turned_is_transposed_beside_each_other(rows: int) -> None:
    torch.manual_seed(0)
    parts = [torch.randn(rows, 24), torch.randn(9, 24)]
    factors = [torch.rand(len(part)) * 100 for part in parts]
    got = turned(parts, factors)
    whole = torch.cat([p * f[:, None] for p, f in zip(parts, factors, strict=True)]).T
    width = rows + 9
    assert got.shape == (24, -(-width // 16) * 16) and not got.float()[:, width:].any()
    torch.testing.assert_close(
        got.float()[:, :width], whole.clamp(-LARGEST, LARGEST), rtol=2**-4, atol=2**-10
    )
    values = quantize(parts[0]).values
    assert torch.equal(turned([values]).float()[:, :rows], values.float().T)


def test_rows_of_parts_have_their_own_largest() -> None:
    parts = torch.randn(5, 16), torch.randn(5, 32) * 10
    made = quantize(*parts, factors=(torch.rand(16), torch.rand(32)), apart=True)
    assert made.largest is not None
    assert torch.equal(made.largest, torch.stack([part.abs().amax(1) for part in parts]))
    assert quantize(*parts).largest is None
    assert isinstance(made, Rows)


def test_in_fp8_parameters_and_what_is_saved_are_as_without() -> None:
    plain, eight = in_fp8()
    want, got = plain.state_dict(), eight.state_dict()
    assert list(got) == list(want) and all(torch.equal(got[name], want[name]) for name in want)


@pytest.mark.parametrize("kernels", [True, False])
def test_in_fp8_validation_is_of_the_weights_as_they_are(kernels: bool) -> None:
    plain, eight = (model.eval() for model in in_fp8())
    for model in (plain, eight):
        if kernels:
            frozen.install(model)
    with torch.no_grad():
        want, got = (model(input_ids=IDS, labels=LABELS).loss for model in (plain, eight))
    assert got == want


def test_in_fp8_roundings_of_a_weight_cancel_over_steps() -> None:
    torch.manual_seed(0)
    weight = torch.randn(16, 64)
    one = quantize(weight).wide() - weight
    several = [quantize(weight, bound=drawn_bound()).wide() for _ in range(400)]
    assert (torch.stack(several).mean(0) - weight).norm() < 0.1 * one.norm()
    assert all((each - weight).norm() < 2**-4 * weight.norm() for each in several)


def test_in_fp8_each_step_rounds_otherwise() -> None:
    _, eight = in_fp8()
    frozen.install(eight)
    losses = {eight(input_ids=IDS, labels=LABELS).loss.item() for _ in range(3)}
    assert len(losses) == 3


def test_in_fp8_a_model_learns_as_without() -> None:
    """Thirty steps on rows that it can learn by heart."""
    ids = torch.randint(0, 100, (4, 24), generator=torch.Generator().manual_seed(3))
    losses = []
    for model in in_fp8():
        frozen.install(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        losses.append([])
        for _ in range(30):
            loss = model(input_ids=ids, labels=ids, num_items_in_batch=92.0).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[-1].append(float(loss.detach()))
    without, with_it = losses
    assert without[-1] < 0.5 * without[0]
    assert with_it == pytest.approx(without, rel=0.05)
