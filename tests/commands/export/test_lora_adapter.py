"""An adapter by itself as GGUF, run by llama.cpp itself on its base model's file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from llama_families import build
from transformers import AutoModelForCausalLM

from llama_recipes_local.cli import main

gguf = pytest.importorskip("gguf", reason="the package gguf is missing")

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IDS = [1, 5, 17, 9, 30, 2, 44]


def adapted(folder: Path, out: Path, **settings: Any) -> peft.PeftModel:
    """Save an adapter with random weights of a good size; return the model with it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    settings = {"target_modules": ALL, "r": 4, "lora_alpha": 12, **settings}
    found = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, parameter in found.named_parameters():
            if "magnitude" not in name and ("lora_" in name or "modules_to_save" in name):
                parameter.data.normal_(std=0.2)
    found.save_pretrained(str(out))
    return found.eval()


def export(tmp_path: Path, *words: str) -> int:
    given = ["--adapter", str(tmp_path / "adapter"), "--out", str(tmp_path / "out")]
    return main(["export", "--format", "gguf-lora", *given, *words])


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("Llama 3.1", {}),
        ("Llama 3.1", {"use_rslora": True, "alpha_pattern": {"down_proj": 3}}),
        ("Llama 2 Chat", {"rank_pattern": {"q_proj": 2, "k_proj": 6}, "use_rslora": True}),
        ("Llama 2 Chat", {"target_modules": [*ALL, "lm_head", "embed_tokens"]}),
        ("SmolLM2", {"target_modules": ["k_proj"], "layers_to_transform": [1]}),
        ("Llama 3.1", {"lora_alpha": -12, "alpha_pattern": {"down_proj": 0}}),
    ],
)
def test_llama_cpp_computes_with_it_what_peft_does(
    family: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """The logits differ by llama.cpp's float16 cache; with the adapter they are others by far."""
    pytest.importorskip("xllamacpp", reason="llama.cpp's wheel is missing")
    from llama_cpp import LlamaCpp

    folder = build(family, tmp_path / "model")
    model = adapted(folder, tmp_path / "adapter", **settings)
    with torch.no_grad():
        expected = model(torch.tensor([IDS])).logits[0].numpy()
    base = ["--model_name", str(folder), "--out", str(tmp_path / "base"), "--type", "f32"]
    assert main(["export", *base]) == 0
    assert export(tmp_path) == 0
    with LlamaCpp(next((tmp_path / "base").glob("*.gguf"))) as found:
        plain = found.logits(IDS)
        found.add_lora(next((tmp_path / "out").glob("*-lora.gguf")))
        difference = np.abs(found.logits(IDS) - expected).max()
    size = np.abs(expected).max()
    assert difference < 0.01 * size
    assert np.abs(plain - expected).max() > 0.05 * size


def test_the_file_says_what_llama_cpp_reads(tmp_path: Path) -> None:
    adapted(build("SmolLM2", tmp_path / "model"), tmp_path / "adapter", use_rslora=True)
    assert export(tmp_path) == 0
    reader = gguf.GGUFReader(tmp_path / "out" / "adapter-lora.gguf")
    values = {name: reader.get_field(name).contents() for name in reader.fields}
    assert values["general.type"] == "adapter"
    assert values["general.architecture"] == "llama"
    assert values["adapter.type"] == "lora"
    assert values["adapter.lora.alpha"] == 24  # 12 / sqrt(4) is the scale, and alpha / 4 too
    names = [tensor.name for tensor in reader.tensors]
    assert {"blk.0.attn_q.weight.lora_a", "blk.1.ffn_down.weight.lora_b"} <= set(names)
    assert len(names) == 2 * len(ALL) * 2
    assert {tensor.tensor_type.name for tensor in reader.tensors} == {"F32"}


def dora(config: dict[str, Any]) -> None:
    config["use_dora"] = True


def whole(config: dict[str, Any]) -> None:
    config["modules_to_save"] = ["lm_head"]


def tokens(config: dict[str, Any]) -> None:
    config["trainable_token_indices"] = [3, 4]


def tied(config: dict[str, Any]) -> None:
    config["target_modules"] = ["embed_tokens"]


@pytest.mark.parametrize(
    ("family", "change", "said"),
    [
        ("SmolLM2", dora, "DoRA's magnitudes"),
        ("Llama 2 Chat", whole, "layers that were trained whole"),
        ("Llama 2 Chat", tokens, "rows of single tokens"),
        ("SmolLM2", tied, "one tensor of the base model"),
    ],
)
def test_what_llama_cpp_does_not_add_is_refused_by_name(
    family: str,
    change: Callable[[dict[str, Any]], None],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings: dict[str, Any] = {}
    change(settings)
    adapted(build(family, tmp_path / "model"), tmp_path / "adapter", **settings)
    assert export(tmp_path) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "export the merged model instead" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--type", "q8_0"], "--type q8_0 with --format gguf-lora"),
        (["--accept", "tokens"], "--accept with --format gguf-lora"),
        (["--model_name", "nowhere"], "nowhere"),
    ],
)
def test_flags_without_effect_are_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapted(build("SmolLM2", tmp_path / "model"), tmp_path / "adapter")
    assert export(tmp_path, *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
