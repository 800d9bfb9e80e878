"""4-bit and 8-bit weights, as the run at hand has them."""

from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from bitsandbytes import functional
from bitsandbytes.nn import Linear4bit, Linear8bitLt, Params4bit

from llama_recipes_local import models
from llama_recipes_local.models import precision
from llama_recipes_local.models.quantization import bnb_config, describe, quantized_bits
from llama_recipes_local.run import activate
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.utils.train_utils import print_model_size

LAYERS = 14  # seven of each decoder layer; the head stays as it is
IDS = torch.arange(3, 40).unsqueeze(0)


def load(folder: Path, **flags: Any) -> Any:
    """Load a Llama as ``main`` does, in a run with the given flags."""
    with activate(resolve({"model_name": str(folder), "use_peft": True, **flags})):
        return models.LlamaForCausalLM.from_pretrained(folder, device_map="auto")


def packed(model: torch.nn.Module) -> dict[str, Params4bit]:
    return {name: p for name, p in model.named_parameters() if isinstance(p, Params4bit)}


def bits(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The packed weights as bytes: as float32 many are NaN, which equals nothing."""
    return {name: p.detach().view(torch.uint8).clone() for name, p in packed(model).items()}


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("use_double_quant", [True, False])
def test_weights_are_quantised_as_asked(
    tiny_model: Path, quant_type: str, use_double_quant: bool
) -> None:
    flags = {"quant_type": quant_type, "use_double_quant": use_double_quant}
    quantized = packed(load(tiny_model, quantization="4bit", **flags))
    whole = dict(load(tiny_model).named_parameters())
    assert len(quantized) == LAYERS
    for name, weight in quantized.items():
        state = weight.quant_state
        assert (state.quant_type, state.nested) == (quant_type, use_double_quant)
        assert weight.dtype == torch.float32  # what the run computes in on CPU
        expected, expected_state = functional.quantize_4bit(
            whole[name].detach(), quant_type=quant_type, compress_statistics=use_double_quant
        )
        assert weight.view(torch.uint8).flatten().equal(expected.flatten())
        values = functional.dequantize_4bit(weight, state)
        assert values.equal(functional.dequantize_4bit(expected, expected_state))


def test_8_bits(tiny_model: Path) -> None:
    model = load(tiny_model, quantization="8bit")
    layers = [layer for layer in model.modules() if isinstance(layer, Linear8bitLt)]
    assert len(layers) == LAYERS
    assert {layer.weight.dtype for layer in layers} == {torch.int8}
    assert quantized_bits(resolve({"quantization": True}).train) == "8bit"


def test_the_model_can_be_quantised_without_a_run_of_main(tiny_model: Path) -> None:
    config = bnb_config(resolve({"quantization": "4bit", "quant_type": "nf4"}))
    model = models.AutoModelForCausalLM.from_pretrained(tiny_model, quantization_config=config)
    assert len(packed(model)) == LAYERS
    assert bnb_config(resolve({})) is None


@pytest.mark.parametrize(
    ("device", "flags", "expected"),
    [
        ("cpu", {}, torch.float32),
        ("cpu", {"dtype": "bfloat16"}, torch.bfloat16),
        ("cuda", {}, torch.bfloat16),
        ("cuda", {"use_fp16": True}, torch.float16),
        ("cuda", {"mixed_precision": False, "dtype": "float32"}, torch.float32),
        ("cuda", {"pure_bf16": True}, torch.bfloat16),
    ],
)
def test_storage_and_computation_follow_the_run(
    monkeypatch: pytest.MonkeyPatch, device: str, flags: dict[str, Any], expected: torch.dtype
) -> None:
    monkeypatch.setattr(precision, "device_type", lambda: device)
    config = bnb_config(resolve({"quantization": "4bit", "use_peft": True, **flags}))
    assert config is not None
    assert config.bnb_4bit_quant_storage is expected
    assert config.bnb_4bit_compute_dtype is expected


def test_a_given_dtype_is_used() -> None:
    flags = {"quant_storage": "uint8", "quantization_config.compute_dtype": "bfloat16"}
    config = bnb_config(resolve({"quantization": "4bit", **flags}))
    assert config is not None
    assert config.bnb_4bit_quant_storage is torch.uint8
    assert config.bnb_4bit_compute_dtype is torch.bfloat16


@torch.no_grad()
def test_validation_leaves_the_packed_weights_as_they_are(tiny_model: Path) -> None:
    model = load(tiny_model, quantization="4bit", use_double_quant=True).eval()
    before = bits(model)
    first = model(IDS).logits
    assert all(weight.equal(before[name]) for name, weight in bits(model).items())
    assert model.train()(IDS).logits.equal(first)
    layers = [layer for layer in model.modules() if isinstance(layer, Linear4bit)]
    assert all(layer.weight.quant_state.nested for layer in layers)


def test_weights_are_counted_one_by_one(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = resolve({"model_name": str(tiny_model)}).train
    model = load(tiny_model, quantization="4bit", quant_type="nf4", use_double_quant=True)
    print_model_size(load(tiny_model), config)
    print_model_size(model, config)
    whole, _, quantized, _, said = capsys.readouterr().out.splitlines()
    assert "0.2 M parameters" in whole
    assert whole == quantized
    assert said == describe(model.config.quantization_config)
    assert "4-bit nf4 with double quantisation, computed in float32 and packed into float32" in said


def test_weights_are_not_packed_again_in_validation(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As bitsandbytes does on a CPU with AVX-512 and bfloat16."""

    def pack(*_: Any) -> Any:
        raise AssertionError("packed again")

    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)
    monkeypatch.setattr(bitsandbytes.nn.modules, "_convert_weight_packed_for_cpu", pack)
    model = load(tiny_model, quantization="4bit").eval()
    with torch.no_grad():
        model(IDS)
        layer = next(layer for layer in model.modules() if isinstance(layer, Linear4bit))
        layer.support_avx512bf16_for_cpu = True
        with pytest.raises(AssertionError, match="packed again"):
            model(IDS)
