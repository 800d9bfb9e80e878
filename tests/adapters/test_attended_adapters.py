"""Prefix tuning and LLaMA-Adapter are PEFT's, on padded rows, and right on packed ones too."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from llama_recipes_local import adapters
from llama_recipes_local.adapters.prefix_tuned import PrefixTunedModel
from llama_recipes_local.adapters.prompted_attention import PromptedAttention
from llama_recipes_local.policies import apply_fsdp_checkpointing

CONFIGS = {
    "prefix": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    "llama_adapter": lambda: peft.AdaptionPromptConfig(
        task_type="CAUSAL_LM", adapter_len=4, adapter_layers=2
    ),
}
# float32 sums of 32 to 64 products that are added up in another order: 2e-7 is seen in logits of
# about 1, 7e-9 in gradients of about 5e-3
LOGITS, GRADIENT = 2e-6, 5e-8


@pytest.fixture(params=CONFIGS)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


def with_open_gates(model: Any) -> Any:
    """Let the prompts of a LLaMA-Adapter, which begin behind closed gates, through."""
    for name, parameter in model.named_parameters():
        if "adaption_gate" in name:
            parameter.data.fill_(0.7)
    return model


@pytest.fixture
def plain(method: str, make_base: Any) -> Any:
    """PEFT's own model, with transformers' own attention."""
    base = make_base("sdpa")
    torch.manual_seed(3)
    return with_open_gates(peft.get_peft_model(base, CONFIGS[method]()))


@pytest.fixture
def ours(method: str, make_base: Any) -> Any:
    """This package's, with the same weights."""
    base = make_base()
    torch.manual_seed(3)
    return with_open_gates(adapters.get_peft_model(base, CONFIGS[method]()))


def gradient(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def laid_side_by_side(documents: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    positions = torch.cat([torch.arange(ids.shape[1]) for ids in documents]).unsqueeze(0)
    return {"input_ids": torch.cat(documents, 1), "position_ids": positions}


def test_it_is_computed_by_this_package(ours: Any, method: str) -> None:
    if method == "prefix":
        assert isinstance(ours, PrefixTunedModel)
    else:
        assert sum(isinstance(module, PromptedAttention) for module in ours.modules()) == 2


@pytest.mark.parametrize("rows", ["padded", "unpadded", "without a mask"])
def test_padded_rows_are_pefts(plain: Any, ours: Any, padded: Any, rows: str) -> None:
    if rows == "unpadded":
        padded["attention_mask"] = torch.ones_like(padded["input_ids"])
    if rows == "without a mask":
        del padded["attention_mask"]
    theirs, mine = plain(**padded), ours(**padded)
    kept = padded["labels"] != -100
    torch.testing.assert_close(mine.logits[kept], theirs.logits[kept], atol=LOGITS, rtol=0)
    theirs.loss.backward()
    mine.loss.backward()
    assert gradient(plain).abs().max() > 1000 * GRADIENT
    torch.testing.assert_close(gradient(ours), gradient(plain), atol=GRADIENT, rtol=0)


@pytest.mark.parametrize("named_by", ["positions", "bounds"])
def test_packed_documents_are_as_each_alone(
    plain: Any, ours: Any, documents: list[torch.Tensor], named_by: str
) -> None:
    batch: dict[str, Any] = laid_side_by_side(documents)
    if named_by == "bounds":
        bounds = torch.tensor([0, 4, 13, 14, 20], dtype=torch.int32)
        batch |= {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds}
        batch |= {"max_length_q": 9, "max_length_k": 9}
    packed = ours(**batch).logits
    alone = torch.cat([plain(ids).logits for ids in documents], 1)
    torch.testing.assert_close(packed, alone, atol=LOGITS, rtol=0)
    weight = torch.randn_like(packed)
    (packed * weight).sum().backward()
    (alone * weight).sum().backward()
    size = gradient(plain).abs().max()
    torch.testing.assert_close(gradient(ours) / size, gradient(plain) / size, atol=LOGITS, rtol=0)


def test_activation_checkpointing_changes_no_bit(ours: Any, documents: list[torch.Tensor]) -> None:
    batch = laid_side_by_side(documents)
    losses, gradients = [], []
    for checkpointing in (False, True):
        if checkpointing:
            ours.train()
            apply_fsdp_checkpointing(ours)
        ours.zero_grad()
        loss = ours(**batch, labels=batch["input_ids"], use_cache=False).loss
        loss.backward()
        losses.append(loss)
        gradients.append(gradient(ours))
    assert losses[0].equal(losses[1]) and gradients[0].equal(gradients[1])


def test_it_is_saved_for_plain_peft(ours: Any, make_base: Any, padded: Any, tmp_path: Path) -> None:
    ours.save_pretrained(tmp_path, state_dict=dict(ours.named_parameters()))
    loaded = peft.PeftModel.from_pretrained(make_base("sdpa"), tmp_path)
    expected = ours.eval()(**padded).logits[0]
    torch.testing.assert_close(loaded(**padded).logits[0], expected, atol=LOGITS, rtol=0)
    texts = [
        model.generate(input_ids=padded["input_ids"][:1], max_new_tokens=8, do_sample=False)
        for model in (loaded, ours, make_base("sdpa"))
    ]
    assert texts[0].equal(texts[1]) and not texts[0].equal(texts[2])


def test_training_continues_from_a_saved_adapter(
    ours: Any, make_base: Any, padded: Any, tmp_path: Path
) -> None:
    ours.save_pretrained(tmp_path, state_dict=dict(ours.named_parameters()))
    again = adapters.PeftModel.from_pretrained(make_base(), tmp_path, is_trainable=True)
    kept = {name: p for name, p in again.named_parameters() if p.requires_grad}
    trained = {name: p for name, p in ours.named_parameters() if p.requires_grad}
    assert kept.keys() == trained.keys()
    assert all(kept[name].equal(parameter) for name, parameter in trained.items())
    assert type(again) is type(ours)
    assert not again.active_peft_config.inference_mode
    assert again(**padded).loss.equal(ours(**padded).loss)


def test_in_bfloat16_the_adapter_is_held_in_float32(make_base: Any, method: str) -> None:
    model = adapters.get_peft_model(make_base().bfloat16(), CONFIGS[method]())
    ids = torch.arange(3, 20).unsqueeze(0)
    for context in (torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False)):
        model.zero_grad()
        with context:
            output = model(input_ids=ids, labels=ids)
        assert output.logits.dtype == torch.bfloat16
        output.loss.backward()
        assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}


def test_a_prefix_needs_this_packages_attention(make_base: Any) -> None:
    model = adapters.get_peft_model(make_base("sdpa"), CONFIGS["prefix"]())
    with pytest.raises(ValueError, match="attn_implementation='documents'"):
        model(torch.arange(3, 9).unsqueeze(0))


@pytest.mark.parametrize("changes", [{"kernel": "sdpa"}, {"attention_bias": True}])
def test_prompts_are_computed_by_peft_where_the_sum_would_differ(
    make_base: Any, changes: Any
) -> None:
    model = adapters.get_peft_model(make_base(**changes), CONFIGS["llama_adapter"]())
    assert not any(isinstance(module, PromptedAttention) for module in model.modules())
