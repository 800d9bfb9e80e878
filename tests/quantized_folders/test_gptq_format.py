"""``export --format gptq`` and adapters on its result, beside gptqmodel's own reading of it."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from llama_recipes_local.cli import main
from llama_recipes_local.model_folders.tensors import StoredTensors
from llama_recipes_local.models import LlamaForCausalLM
from llama_recipes_local.preflight.checks import CHECKS, find_problems
from llama_recipes_local.quantized_folders.gptq_format import GptqExport
from llama_recipes_local.quantized_folders.gptq_weights import dequantised
from llama_recipes_local.run.resolution import resolve

INSTALLED = all(map(find_spec, ("gptqmodel", "optimum")))
with_packages = pytest.mark.skipif(not INSTALLED, reason="gptqmodel or optimum is not installed")
compiling = pytest.mark.command  # gptqmodel's kernel is compiled, in processes of its own
LAYER = "model.layers.0.mlp.down_proj"
TARGETS = [*(f"{each}_proj" for each in "qkvo"), "gate_proj", "up_proj", "down_proj"]
IDS = torch.arange(24).reshape(1, -1) * 7 % 200


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A model with some of its layers' groups of inputs larger than others."""
    folder = tmp_path_factory.mktemp("gptq") / "model"
    config = transformers.AutoConfig.from_pretrained(tiny_model)
    config.hidden_size, config.intermediate_size, config.head_dim = 128, 192, 64
    config.num_attention_heads = config.num_key_value_heads = 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = transformers.LlamaForCausalLM(config)
    made.get_submodule(LAYER).weight.data[:, :64] *= 5
    made.save_pretrained(str(folder))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny_model / name).read_bytes())
    texts = [{"prompt": f"Say {number}.", "response": f"It is {number}."} for number in range(40)]
    (folder.parent / "rows.jsonl").write_text("\n".join(map(json.dumps, texts)))
    return folder


def words(model: Path, out: Path, kind: str) -> list[str]:
    rows = model.parent / "rows.jsonl"
    given = ["--model_name", model, "--dataset", rows, "--format", "gptq", "--type", kind]
    return ["export", *map(str, [*given, "--out", out])]


@pytest.fixture(scope="module", params=["4bit", "8bit"])
def exported(
    request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("exported") / request.param
    assert main(words(model, out, request.param)) == 0
    return out


@with_packages
def test_the_folder_says_what_it_is_and_no_training_row(exported: Path) -> None:
    settings = json.loads((exported / "config.json").read_text())["quantization_config"]
    assert settings["quant_method"] == "gptq" and "dataset" not in settings
    assert settings["format"] == "gptq" and settings["group_size"] == 64
    assert any(each.startswith("gptqmodel:") for each in settings["meta"]["quantizer"])
    certificate = json.loads((exported / "certificate.json").read_text())
    low, high = (0.05, 0.3) if exported.name == "4bit" else (0.002, 0.02)
    assert low < certificate["errors"]["quantised"] < high


@with_packages
@compiling
def test_transformers_computes_what_the_certificate_was_made_of(
    exported: Path, model: Path
) -> None:
    stored, bits = StoredTensors([exported / "model.safetensors"]), int(exported.name[0])
    settings = transformers.GPTQConfig(bits, backend="torch")
    read = transformers.AutoModelForCausalLM.from_pretrained(
        exported, dtype=torch.float32, quantization_config=settings
    )
    plain = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    for name, layer in plain.named_modules():
        if f"{name}.qweight" in stored:
            layer.weight.data = dequantised(stored, name, bits)
    with torch.no_grad():
        torch.testing.assert_close(read(IDS).logits, plain(IDS).logits, rtol=1e-3, atol=2e-3)


@with_packages
@compiling
def test_an_adapter_gets_the_gradient_of_the_dequantised_model_after_a_validation(
    exported: Path, model: Path
) -> None:
    stored, bits = StoredTensors([exported / "model.safetensors"]), int(exported.name[0])
    plain = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    for name, layer in plain.named_modules():
        if f"{name}.qweight" in stored:
            layer.weight.data = dequantised(stored, name, bits)
    config = peft.LoraConfig(r=4, target_modules=TARGETS, task_type="CAUSAL_LM")
    gradients = []
    for each in (LlamaForCausalLM.from_pretrained(exported, torch_dtype=torch.float32), plain):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            adapted = peft.get_peft_model(each, config)
            for name, parameter in sorted(adapted.named_parameters()):  # gptqmodel's order differs
                if "lora_" in name:
                    parameter.data.normal_(std=0.05)
        with torch.no_grad():
            adapted.eval()(IDS)
        adapted.train()(IDS, labels=IDS).loss.backward()
        gradients.append(
            {n: p.grad for n, p in sorted(adapted.named_parameters()) if p.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) == 2 * 14
    for name, gradient in gradients[0].items():
        error = (gradient - gradients[1][name]).norm() / gradients[1][name].norm()
        assert error < 0.02, name  # dequantised from scales in half precision


@with_packages
def test_the_certificate_refuses_the_format_that_is_not_the_files(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = GptqExport.write

    def shifted(self: GptqExport, folder: Path) -> None:
        write(self, folder)
        tensors = load_file(folder / "model.safetensors")
        for name in tensors:
            if name.endswith("qzeros"):
                tensors[name] += 0x11111111
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(GptqExport, "write", shifted)
    assert main(words(model, tmp_path / "out", "4bit")) == 2
    assert "--accept weights" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@with_packages
def test_rows_are_needed(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["export", "--model_name", str(model), "--out", str(tmp_path / "out")]
    assert main([*given, "--format", "gptq"]) == 2
    assert "calibrated on training rows" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(INSTALLED, reason="gptqmodel and optimum are installed")
def test_missing_packages_are_named_with_what_installs_them(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(model, tmp_path / "out", "4bit")) == 2
    said = capsys.readouterr().err
    assert "gptqmodel" in said and "[gptq]" in said
    assert not (tmp_path / "out").exists()


def test_layers_that_have_no_groups_are_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = load_file(model / "model.safetensors")
    (tmp_path / "odd").mkdir()
    config = json.loads((model / "config.json").read_text()) | {"intermediate_size": 190}
    (tmp_path / "odd" / "config.json").write_text(json.dumps(config))
    for name, tensor in tensors.items():
        if "gate_proj" in name or "up_proj" in name:
            tensors[name] = tensor[:190].contiguous()
        elif "down_proj" in name:
            tensors[name] = tensor[:, :190].contiguous()
    save_file(tensors, tmp_path / "odd" / "model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "odd" / name).write_bytes((model / name).read_bytes())
    given = ["export", "--model_name", str(tmp_path / "odd"), "--out", str(tmp_path / "out")]
    assert main([*given, "--format", "gptq"]) == 2
    assert "multiples of 32 rows and columns" in capsys.readouterr().err


def test_the_layers_of_a_gptq_base_are_named(model: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(model, tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    for quantised in (True, False):
        settings = {"quant_method": "gptq", "bits": 4, "group_size": 64}
        config["quantization_config"] = settings if quantised else None
        (base / "config.json").write_text(json.dumps(config))
        flags = {"model_name": str(base), "use_peft": True, "target_modules": "all-linear"}
        told = [each for each in find_problems(resolve(flags), CHECKS) if "all-linear" in each.what]
        assert len(told) == quantised
        assert not told or "--target_modules q_proj,k_proj" in told[0].fix
