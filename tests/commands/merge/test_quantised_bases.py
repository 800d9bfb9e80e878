"""Base models that are quantised in their folder: what is merged, and what is refused."""

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, FineGrainedFP8Config

from llama_recipes_local.commands.merge.command import Merge, merge
from llama_recipes_local.errors import UsageError
from llama_recipes_local.models import LlamaForCausalLM
from llama_recipes_local.preflight.checks import CHECKS, find_problems
from llama_recipes_local.preflight.stored_model_rules import adopt_stored_bits, check_stored_weights
from llama_recipes_local.run.resolution import resolve

IDS = torch.arange(5, 25)[None]
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "modules_to_not_convert": ["lm_head"]}


def say(folder: Path, config: object) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text("utf-8")) | {"quantization_config": config}
    path.write_text(json.dumps(content), "utf-8")


def bitsandbytes(folder: Path, **settings: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=BitsAndBytesConfig(**settings)
    )
    model.save_pretrained(folder)


def fp8(folder: Path, rows: int, columns: int) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        weight = tensors[name].clone()
        scale = torch.zeros(-(-weight.shape[0] // rows), -(-weight.shape[1] // columns))
        for i in range(scale.shape[0]):
            for j in range(scale.shape[1]):
                block = weight[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
                scale[i, j] = block.abs().max() / 448
                block /= scale[i, j]
        tensors |= {name: weight.to(torch.float8_e4m3fn), f"{name}_scale_inv": scale}
    save_file(tensors, path, metadata={"format": "pt"})
    say(folder, FP8 | {"weight_block_size": [rows, columns]})


MAKERS = {
    "8bit": lambda folder: bitsandbytes(folder, load_in_8bit=True),
    "4bit": lambda folder: bitsandbytes(folder, load_in_4bit=True),
    "fp8 in blocks": lambda folder: fp8(folder, 32, 16),
    "fp8 in one block": lambda folder: fp8(folder, 128, 128),
}


@pytest.fixture(params=MAKERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def base(kind: str, tiny_model: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    MAKERS[kind](folder)
    return folder


def dequantised(folder: Path) -> torch.nn.Module:
    """The model as transformers dequantises it."""
    config = json.loads((folder / "config.json").read_text("utf-8"))["quantization_config"]
    if config["quant_method"] == "fp8":
        settings = {name: value for name, value in config.items() if name != "quant_method"}
        reading = FineGrainedFP8Config(**settings | {"dequantize": True})
        return AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=reading, dtype=torch.float32
        )
    return AutoModelForCausalLM.from_pretrained(folder).dequantize().float()


def adapter_on(folder: Path, out: Path) -> torch.Tensor:
    """Save an adapter with random weights, and return the logits of PEFT's own merge."""
    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(dequantised(folder), config)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    model.save_pretrained(out)
    model.eval()
    with torch.no_grad():
        return model.merge_and_unload()(IDS).logits


def test_an_adapter_on_a_quantised_model_is_merged_into_its_values(
    kind: str, base: Path, tmp_path: Path
) -> None:
    wanted = adapter_on(base, tmp_path / "adapter")
    merge(Merge(adapter=tmp_path / "adapter", model=base, out=tmp_path / "merged"))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert not hasattr(merged.config, "quantization_config")
    with torch.no_grad():
        found = merged(IDS).logits
    # bitsandbytes' dequantisation of 4 bits rounds to the dtype that the weights had
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_fp8_is_dequantised_when_it_is_loaded(tiny_model: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    fp8(base, 32, 16)
    model = LlamaForCausalLM.from_pretrained(base, torch_dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, dequantised(base).eval()(IDS).logits)


@pytest.mark.parametrize("name", ["gptq", "awq", "compressed-tensors", "fbgemm_fp8"])
def test_other_methods_are_not_merged(name: str, tiny_model: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    model = AutoModelForCausalLM.from_pretrained(base)
    peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM")).save_pretrained(
        tmp_path / "adapter"
    )
    say(base, {"quant_method": name, "bits": 4})
    with pytest.raises(UsageError, match="merge dequantises bitsandbytes' 4 and 8 bits and FP8"):
        merge(Merge(adapter=tmp_path / "adapter", model=base, out=tmp_path / "merged"))
    assert not (tmp_path / "merged").exists()


def test_only_an_adapter_is_trained_on_quantised_weights(
    kind: str, base: Path, grammar_data: Path, tmp_path: Path
) -> None:
    flags = {
        "model_name": str(base),
        "data_root": str(grammar_data),
        "dataset": "grammar_dataset",
        "context_length": 256,
        "output_dir": str(tmp_path / "out"),
    }
    run = resolve(flags | {"use_peft": True})
    adopt_stored_bits(run)
    assert find_problems(run) == []
    assert run.train.quantization == (kind if kind.endswith("bit") else None)
    (problem,) = find_problems(resolve(flags), CHECKS)
    assert "quantised weights cannot be trained, only an adapter on them can" in problem.why


@pytest.mark.parametrize("asked", ["4bit", "8bit"])
def test_quantising_a_second_time_is_refused(asked: str, kind: str, base: Path) -> None:
    run = resolve({"model_name": str(base), "use_peft": True, "quantization": asked})
    problems = check_stored_weights(run)
    assert [f"--quantization {asked}: the weights in" in each.what for each in problems] == [
        True for _ in range(asked != kind)
    ]


def test_messages_name_the_folder_where_it_quantises_the_weights(
    tiny_model: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    bitsandbytes(base, load_in_8bit=True)
    flags = {"model_name": str(base), "use_peft": True, "enable_fsdp": True}
    run = resolve(flags | {"low_cpu_fsdp": True, "init_lora_weights": "pissa"})
    adopt_stored_bits(run)
    told = list(map(str, find_problems(run)))
    named = [each for each in told if "weights in 8bit (quantization_config in the model" in each]
    assert len(named) == 3  # sharding, low_cpu_fsdp and PiSSA
    assert not any("--quantization" in each for each in told)


@pytest.mark.parametrize("scheme", ["W4A16", "W8A8"])
def test_compressed_tensors_are_dequantised_when_they_are_loaded(
    scheme: str, tiny_model: Path, tmp_path: Path
) -> None:
    """To the package's own values, and with a gradient where activations were quantised too."""
    pytest.importorskip("compressed_tensors")
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    compress(base, scheme)
    model = LlamaForCausalLM.from_pretrained(base, torch_dtype=torch.float32)
    tensors, name = load_file(base / "model.safetensors"), "model.layers.1.mlp.up_proj"
    if scheme == "W8A8":
        wanted = tensors[f"{name}.weight"].float() * tensors[f"{name}.weight_scale"]
        torch.testing.assert_close(model.get_submodule(name).weight, wanted, rtol=0, atol=1e-7)
    else:
        compressed = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        with torch.no_grad():
            torch.testing.assert_close(model(IDS).logits, compressed(IDS).logits)
    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, config)
    adapted(IDS, labels=IDS).loss.backward()
    assert sum(each.grad is not None for each in adapted.parameters()) == 2 * 14


def compress(folder: Path, scheme: str) -> None:
    """Quantise a model as the package writes it."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationConfig,
        apply_quantization_config,
        preset_name_to_scheme,
    )

    group = preset_name_to_scheme(scheme, ["Linear"])
    if scheme == "W4A16":
        group.weights.group_size = 32
    config = QuantizationConfig(
        config_groups={"group_0": group}, ignore=["lm_head"], quantization_status="frozen"
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    apply_quantization_config(model, config)
    for layer in model.modules():
        if hasattr(layer, "quantization_scheme"):
            size = group.weights.group_size or layer.weight.shape[1]
            most = layer.weight.detach().unflatten(1, (-1, size)).abs().amax(-1)
            layer.weight_scale.data.copy_(most / (2 ** (group.weights.num_bits - 1) - 0.5))
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(folder)


def test_settings_of_4_bits_on_other_stored_weights_are_left_out_not_completed(
    tiny_model: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    fp8(base, 32, 16)
    flags = {"model_name": str(base), "use_peft": True, "quant_type": "nf4", "context_length": 64}
    found = find_problems(resolve(flags), CHECKS)
    (problem,) = [each for each in found if "--quant_type" in each.what]
    assert problem.fix == "leave --quant_type out" and "FP8" in problem.what
