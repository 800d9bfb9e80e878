"""A Llama with frozen weights and LoRA, computed in other functions, is the same Llama.

transformers and PEFT are the reference, in float64; the norm of transformers rounds to float32,
which bounds what can be compared. ``tests/cuda`` compares the Triton kernels with these functions.
"""

import copy
from typing import Any

import peft
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local.kernels import frozen, labelled_rows
from llama_recipes_local.kernels.lora import projections
from llama_recipes_local.kernels.lora.dropout import Dropout
from llama_recipes_local.kernels.lora.products import Given

SHAPE = {
    "hidden_size": 48,
    "intermediate_size": 104,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "use_cache": False,
}
IDS = torch.arange(34).reshape(2, 17) * 7 % 100
LABELS = torch.where(torch.arange(17) < 7, -100, IDS)
CLOSE = 1e-5


def plain_model(**config: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE | config)).double()


def with_lora(model: LlamaForCausalLM, **settings: Any) -> peft.PeftModel:
    values = {"r": 5, "lora_alpha": 12, "lora_dropout": 0.0, "target_modules": "all-linear"}
    torch.manual_seed(1)
    config = peft.LoraConfig(
        **values | {"init_lora_weights": False, "task_type": "CAUSAL_LM"} | settings
    )
    return peft.get_peft_model(model, config).double().train()


def both(settings: dict[str, Any], **config: Any) -> tuple[peft.PeftModel, peft.PeftModel]:
    """Return a model with LoRA as PEFT computes it, and the same one computed here."""
    model = plain_model(**config)
    other = copy.deepcopy(model)
    frozen.install(other)
    return with_lora(model, **settings), with_lora(other, **settings)


def step(model: peft.PeftModel) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss = model(input_ids=IDS, labels=LABELS, num_items_in_batch=20.0).loss
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def difference(one: peft.PeftModel, two: peft.PeftModel) -> float:
    """Return the largest difference of loss and gradients, as a share of the largest gradient."""
    (loss, gradients), (other_loss, others) = step(one), step(two)
    assert gradients.keys() == others.keys()
    off = [(others[n] - g).abs().max() / g.abs().max() for n, g in gradients.items()]
    return max(torch.stack([*off, (loss - other_loss).abs()]).tolist())


@pytest.mark.parametrize("multiple", [128, 3], ids=["whole", "labelled rows"])
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize(
    ("settings", "config"),
    [
        ({}, {}),
        ({"target_modules": ["q_proj", "v_proj"]}, {}),
        ({"target_modules": ["gate_proj", "o_proj"], "use_rslora": True}, {"mlp_bias": True}),
        ({"target_modules": ["k_proj", "down_proj"]}, {"attention_bias": True, "head_dim": 20}),
        ({"target_modules": ["down_proj"]}, {}),  # what the first layer reads needs no gradient
        ({"r": 3, "rank_pattern": {"q_proj": 7, "up_proj": 1}}, {"tie_word_embeddings": True}),
    ],
)
def test_loss_and_gradients_are_pefts(
    settings: dict[str, Any],
    config: dict[str, Any],
    checkpointed: bool,
    multiple: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(labelled_rows, "_MULTIPLE", multiple)
    models = both(settings, **config)
    if checkpointed:
        for model in models:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable({"use_reentrant": False})
    assert difference(*models) < CLOSE


def test_what_wraps_the_last_attention_gets_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled_rows, "_MULTIPLE", 3)
    models = []
    for installed in (False, True):
        model = plain_model()
        if installed:
            frozen.install(model)
        config = peft.AdaptionPromptConfig(
            adapter_len=4, adapter_layers=1, task_type=peft.TaskType.CAUSAL_LM
        )
        adapted = peft.get_peft_model(model, config)
        for name, parameter in adapted.named_parameters():
            if "adaption" in name:
                torch.manual_seed(len(name))
                parameter.data.normal_()
        models.append(adapted.double().train())
    assert difference(*models) < CLOSE


def test_what_is_compared_is_computed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    for module, name in (
        (projections, "project"),
        (projections, "mlp"),
        (frozen, "add_and_norm"),
        (frozen, "vocabulary_loss"),
    ):
        function = getattr(module, name)

        def counted(*args: Any, function: Any = function, name: str = name) -> Any:
            called.append(name)
            return function(*args)

        monkeypatch.setattr(module, name, counted)
    step(both({})[1])
    assert sorted(called) == sorted(
        ["project"] * 4 + ["mlp"] * 2 + ["add_and_norm"] * 5 + ["vocabulary_loss"]
    )


@pytest.mark.parametrize("again", [False, True])
def test_a_norms_output_is_made_again_where_that_is_asked_for(
    again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, kept = [], set()

    def recorded(*args: Any) -> Any:
        total, normed, made_of = add_and_norm(*args)
        made.append(normed)  # so that its memory is not used again
        return total, normed, made_of

    add_and_norm = frozen.add_and_norm
    monkeypatch.setattr(frozen, "add_and_norm", recorded)
    plain, model = both({})
    if again:
        assert frozen.remake_norms(model) == SHAPE["num_hidden_layers"]
    assert difference(plain, model) < CLOSE
    made.clear()

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept.add(x.data_ptr())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        model(input_ids=IDS, labels=LABELS, num_items_in_batch=20.0)
    assert len(made) == 5  # with the last one, which no adapter reads
    assert len(kept & {x.data_ptr() for x in made[:4]}) == (0 if again else 4)


def test_a_checkpointed_layer_does_not_compute_its_last_product_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = {"gate_up": 0, "down": 0}
    forward = projections.Group.forward

    def counted(self: Any, x: Given, dropout: Dropout) -> Any:
        names = {(48, 2): "gate_up", (104, 1): "down"}
        name = names.get((x.tensors[0].shape[1], len(self.layers)))
        if name is not None:
            counts[name] += 1
        return forward(self, x, dropout)

    monkeypatch.setattr(projections.Group, "forward", counted)
    model = both({})[1]
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    step(model)
    assert counts == {"gate_up": 2 * SHAPE["num_hidden_layers"], "down": 2}  # type: ignore[operator]


def test_dropout_is_that_of_its_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT's modules, with the same mask put in place of their dropout, are the reference."""
    settings = {"lora_dropout": 0.3}
    plain, ours = both(settings)
    seeds = iter(range(1000, 2000))
    monkeypatch.setattr(torch, "randint", lambda *_: torch.tensor(next(seeds)))
    drawn = iter(range(1000, 2000))

    class Masked(nn.Module):
        seed = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Dropout(0.3, self.seed).of(x.flatten(0, 1)).view(x.shape)

    for layer in plain.get_base_model().model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        groups = [(attention.q_proj, attention.k_proj, attention.v_proj), (attention.o_proj,)]
        for group in [*groups, (mlp.gate_proj, mlp.up_proj), (mlp.down_proj,)]:
            seed = next(drawn)
            for module in group:
                module.lora_dropout["default"] = Masked()
                module.lora_dropout["default"].seed = seed
    assert difference(plain, ours) < CLOSE


def test_dropout_falls_differently_each_time_and_not_in_evaluation() -> None:
    model = both({"lora_dropout": 0.3})[1]

    def logits() -> torch.Tensor:
        return model(input_ids=IDS).logits.detach()

    assert not torch.equal(logits(), logits())
    torch.manual_seed(5)
    first = logits()
    torch.manual_seed(5)
    assert torch.equal(logits(), first)
    model.eval()
    assert torch.equal(logits(), logits())


@pytest.mark.parametrize("multiple", [128, 3], ids=["whole", "labelled rows"])
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"use_dora": True}, {"Dora computes them otherwise": 14}),
        ({"lora_bias": True, "target_modules": ["q_proj"]}, {"LoRA has a bias": 2}),
        ({"bias": "all"}, {"their weights are trained": 8}),
    ],
)
def test_what_is_computed_otherwise_is_left_to_peft(
    settings: dict[str, Any],
    reason: dict[str, int],
    multiple: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(labelled_rows, "_MULTIPLE", multiple)
    config = {"attention_bias": True} if "bias" in settings else {}
    plain, ours = both(settings, **config)
    assert frozen.fallbacks(ours) == reason
    assert difference(plain, ours) < CLOSE


def test_two_adapters_merged_and_disabled_ones_are_left_to_peft_or_left_out() -> None:
    plain, ours = both({})
    for model in (plain, ours):
        model.add_adapter("second", peft.LoraConfig(r=2, target_modules=["q_proj"]))
        model.base_model.set_adapter(["default", "second"])
    assert frozen.fallbacks(ours) == {"2 adapters are active": 2}
    with torch.no_grad():
        for change in ("set", "merge_adapter", "unmerge_adapter"):
            if change != "set":
                getattr(plain, change)()
                getattr(ours, change)()
            want, got = (m(input_ids=IDS).logits for m in (plain, ours))
            assert torch.allclose(got, want, atol=CLOSE)
        with plain.disable_adapter(), ours.disable_adapter():
            want, got = (m(input_ids=IDS).logits for m in (plain, ours))
            assert torch.allclose(got, want, atol=CLOSE)


def test_with_a_cache_it_generates_what_transformers_generates() -> None:
    plain, ours = (model.eval() for model in both({}))
    texts = [
        model.generate(input_ids=IDS, max_new_tokens=5, do_sample=False, use_cache=True)
        for model in (plain, ours)
    ]
    assert torch.equal(*texts)
