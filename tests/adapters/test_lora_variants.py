"""LoRA's variants: flags, PiSSA saved as LoRA, LoRA+'s learning rates, continuing, dtypes."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from llama_recipes_local import adapters, configs
from llama_recipes_local.optimization.parameter_groups import split_lora_plus
from llama_recipes_local.run import activate, resolution

IDS = torch.arange(3, 20).unsqueeze(0)
# W - B0 A0 + B A against W + (B A - B0 A0): float32 sums of some hundred products in another order
LOGITS = 1e-5


def make_config(**flags: Any) -> Any:
    return adapters.generate_peft_config(configs.train_config(), {"lora_dropout": 0} | flags)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def train_a_little(model: Any) -> None:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    for _ in range(3):
        model.train()(IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_flags_reach_peft() -> None:
    flags = {"r": 4, "use_rslora": True, "use_dora": "true", "init_lora_weights": "gaussian"}
    config = make_config(**flags, target_modules="all-linear")
    assert (config.r, config.use_rslora, config.use_dora) == (4, True, True)
    assert (config.init_lora_weights, config.target_modules) == ("gaussian", "all-linear")
    assert make_config(init_lora_weights="False").init_lora_weights is False


def test_an_unknown_method_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="Peft config not found: qlora"):
        adapters.generate_peft_config(configs.train_config(peft_method="qlora"), {})


@pytest.mark.parametrize("flags", [{}, {"use_rslora": True}, {"use_dora": True}], ids=str)
@pytest.mark.parametrize("first", ["pissa", "pissa_niter_4"])
def test_pissa_is_saved_as_lora_of_twice_the_rank(
    make_base: Any, tmp_path: Path, flags: dict[str, Any], first: str
) -> None:
    base = make_base()
    start = logits(base)
    weights = {name: p.clone() for name, p in base.named_parameters()}
    model = adapters.get_peft_model(base, make_config(init_lora_weights=first, r=4, **flags))
    torch.testing.assert_close(logits(model), start, atol=LOGITS, rtol=0)
    query = base.model.layers[0].self_attn.q_proj.base_layer.weight
    assert not query.equal(weights["model.layers.0.self_attn.q_proj.weight"])
    train_a_little(model)
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (saved["r"], saved["init_lora_weights"]) == (8, True)
    loaded = peft.PeftModel.from_pretrained(make_base(), tmp_path)
    assert (logits(model) - start).abs().max() > 100 * LOGITS
    torch.testing.assert_close(logits(loaded), logits(model), atol=LOGITS, rtol=0)
    # it can be saved again: the trained one has kept its rank
    assert model.peft_config["default"].r == 4


def test_lora_plus_gives_b_its_own_rate(make_base: Any) -> None:
    model = adapters.get_peft_model(make_base(), make_config())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    split_lora_plus(model, optimizer, 16.0)
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert len(rates) == 12
    assert all(lr == (16e-3 if ".lora_B." in name else 1e-3) for name, lr in rates.items())


@pytest.mark.parametrize("flags", [{}, {"use_dora": True}, {"bias": "all"}], ids=str)
@pytest.mark.parametrize(("pure", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_adapters_are_in_float32_unless_all_is_bfloat16(
    make_base: Any, tmp_path: Path, flags: dict[str, Any], pure: bool, dtype: torch.dtype
) -> None:
    with activate(resolution.resolve({"pure_bf16": pure})):
        base = make_base(attention_bias="bias" in flags).bfloat16()
        model = adapters.get_peft_model(base, make_config(**flags))
        model.save_pretrained(tmp_path)
        base = make_base(attention_bias="bias" in flags).bfloat16()
        again = adapters.PeftModel.from_pretrained(base, tmp_path, is_trainable=True)
    for each in (model, again):
        assert {p.dtype for p in each.parameters() if p.requires_grad} == {dtype}
        assert {p.dtype for p in each.parameters() if not p.requires_grad} == {torch.bfloat16}


def test_an_adapter_for_inference_is_pefts_own(make_base: Any, tmp_path: Path) -> None:
    adapters.get_peft_model(make_base(), make_config()).save_pretrained(tmp_path)
    loaded = adapters.PeftModel.from_pretrained(make_base(), tmp_path)
    assert not any(p.requires_grad for p in loaded.parameters())
