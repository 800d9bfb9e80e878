"""``export --format fp8``: what compressed-tensors computes and reads, and what vLLM takes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from llama_recipes_local.cli import main
from llama_recipes_local.commands.export.command import Export, _planned_model
from llama_recipes_local.commands.export.export_types import TYPES
from llama_recipes_local.errors import UsageError
from llama_recipes_local.export_formats import FORMATS
from llama_recipes_local.models import AutoModelForCausalLM
from llama_recipes_local.models.folder_checks import check_stored_model
from llama_recipes_local.models.top_layers import LlamaWithTopLayersForCausalLM
from llama_recipes_local.quantized_folders.fp8_format import (
    BLOCK,
    Fp8Export,
    configuration,
    quantized,
)
from llama_recipes_local.quantized_folders.gptq_format import GptqExport

LAYER = "model.layers.0.mlp.down_proj"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A model in bfloat16 whose layers have more than one block, and one of zeros."""
    config = transformers.AutoConfig.from_pretrained(tiny_model)
    config.hidden_size, config.intermediate_size = BLOCK, 3 * BLOCK
    config.num_attention_heads = config.num_key_value_heads = 2
    config.head_dim = BLOCK // 2
    folder = tmp_path_factory.mktemp("fp8") / "model"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    weight = made.get_submodule(LAYER).weight.data
    weight[:, :BLOCK] *= 30
    weight[5] = 0
    made.save_pretrained(str(folder))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny_model / name).read_bytes())
    return folder


def exported(model: Path, out: Path, strategy: str) -> Path:
    words = ["--model_name", model, "--out", out, "--format", "fp8", "--type", strategy]
    assert main(["export", *map(str, words)]) == 0
    return out


def test_every_type_of_a_format_has_its_class() -> None:
    named = [f"{name}-{each}" for name in ("gguf", "fp8") for each in TYPES[name]]
    assert named and set(named) <= FORMATS.keys()


@pytest.mark.parametrize("strategy", TYPES["fp8"])
def test_transformers_reads_the_rounded_weights(
    strategy: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("compressed_tensors")
    folder = exported(model, tmp_path / "out", strategy)
    said = capsys.readouterr().out
    assert "vllm serve" in said and "llama.cpp" not in said  # whose files are made of whole weights
    certificate = json.loads((folder / "certificate.json").read_text())
    assert 0.01 < certificate["errors"]["quantised"] < 0.04
    assert not check_stored_model(folder)
    before, stored = (load_file(each / "model.safetensors") for each in (model, folder))
    ours = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    settings = transformers.CompressedTensorsConfig(dequantize=True)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=settings
    )
    rounded = 0
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, rtol=0, atol=0)
        if stored.get(name, weight).dtype != torch.float8_e4m3fn:
            torch.testing.assert_close(weight, before.get(name, weight), rtol=0, atol=0)
            continue
        rounded += 1
        error = (weight.float() - before[name].float()).norm() / before[name].float().norm()
        assert 0.01 < error < 0.04  # three bits and a sign: 2**-4 at most
    assert rounded == 7 * theirs.config.num_hidden_layers


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("strategy", TYPES["fp8"])
def test_scales_and_values_are_those_of_compressed_tensors(
    strategy: str, dtype: torch.dtype, model: Path
) -> None:
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.quantization import QuantizationConfig
    from compressed_tensors.quantization.lifecycle.forward import quantize
    from compressed_tensors.quantization.utils import calculate_qparams

    weight = load_file(model / "model.safetensors")[f"{LAYER}.weight"].to(dtype)
    settings = QuantizationConfig.model_validate(configuration(strategy))
    args = settings.config_groups["group_0"].weights
    values, scales = quantized(weight, strategy)
    if strategy == "block":
        tiles = weight.reshape(weight.shape[0] // BLOCK, BLOCK, -1, BLOCK)
        low, high = tiles.amin(dim=(1, 3)), tiles.amax(dim=(1, 3))
    else:
        over = (0, 1) if strategy == "tensor" else 1
        low, high = (each.reshape(scales.shape) for each in (weight.amin(over), weight.amax(over)))
    expected, zeros = calculate_qparams(low, high, args)
    used = scales > torch.finfo(dtype).tiny  # a row of zeros has any scale
    assert used.any()
    torch.testing.assert_close(scales[used], expected[used].to(dtype), rtol=0.004, atol=0)
    reference = quantize(weight.float(), scales.float(), zeros, args, dtype=torch.float8_e4m3fn)
    assert torch.equal(values.view(torch.uint8), reference.view(torch.uint8))
    assert values.float().isfinite().all()


def test_blocks_that_vllm_does_not_take_are_refused(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model_name", tiny_model, "--out", tmp_path / "out", "--format", "fp8"]
    assert main(["export", *map(str, words), "--type", "block"]) == 2
    said = capsys.readouterr().err
    assert "multiples of 128 rows and columns" in said and "--type channel" in said
    assert not (tmp_path / "out").exists()


def test_another_models_layers_are_refused(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    config = json.loads((tiny_model / "config.json").read_text())
    made = LlamaWithTopLayersForCausalLM(transformers.LlamaConfig(**config | {"top_layers": 1}))
    made.load_state_dict(model.state_dict(), strict=False)
    made.save_pretrained(str(tmp_path / "model"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).write_bytes((tiny_model / name).read_bytes())
    words = ["--model_name", tmp_path / "model", "--out", tmp_path / "out", "--format", "fp8"]
    assert main(["export", *map(str, words)]) == 2
    assert "vLLM's Llama has no model.top_layers.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("a scale", "weights"),
        ("rows in another order", "weights"),
        ("the rotary base", "settings"),
        ("the end token", "ends"),
    ],
)
def test_what_was_written_wrong_is_refused(
    fault: str,
    check: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write = Fp8Export.write

    def broken(self: Fp8Export, folder: Path) -> None:
        write(self, folder)
        break_folder(folder, fault)

    monkeypatch.setattr(Fp8Export, "write", broken)
    words = ["--model_name", model, "--out", tmp_path / "out", "--format", "fp8"]
    assert main(["export", *map(str, words)]) == 2
    assert f"--accept {check}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def break_folder(folder: Path, fault: str) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    if fault == "a scale":
        tensors[f"{LAYER}.weight_scale"] *= 1.1
    elif fault == "rows in another order":
        name = "model.layers.1.self_attn.q_proj.weight"
        tensors[name] = tensors[name].view(torch.uint8).flip(0).view(torch.float8_e4m3fn)
    save_file(tensors, path, metadata={"format": "pt"})
    for name in ("config.json", "generation_config.json"):
        content = json.loads((folder / name).read_text())
        before = dict(content)
        if fault == "the end token":
            content["eos_token_id"] = 5
        elif fault == "the rotary base" and name == "config.json":
            content["rope_parameters"] = content["rope_parameters"] | {"rope_theta": 20000.0}
        if content != before:
            (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["fp8-channel", "gptq-4bit"])
def test_a_tokenizer_that_is_not_copied_whole_is_refused_before_a_weight_is_written(
    name: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "model", tmp_path / "elsewhere.json"
    shutil.copytree(model, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    elsewhere.write_text(json.dumps(settings | {"extra_special_tokens": ["<more>"]}))
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer_config.json").symlink_to(elsewhere)  # which may be private
    monkeypatch.setattr(GptqExport, "check", lambda *_: [])
    with pytest.raises(UsageError, match="the export has other tokens than its model"):
        _planned_model(Export(model=folder, adapter=None, out=tmp_path / "out"), name)
    accepted = Export(model=folder, adapter=None, out=tmp_path / "out", accepted=["tokens"])
    assert _planned_model(accepted, name)


def test_further_templates_of_the_tokenizer_are_exported(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "model"
    shutil.copytree(model, source)
    (source / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    out = exported(source, tmp_path / "out", "channel")
    before, after = map(transformers.AutoTokenizer.from_pretrained, (source, out))
    assert set(after.chat_template) == {"default", "tool_use"}
    assert after.chat_template == before.chat_template
    named = json.loads((out / "custody.json").read_text())["steps"][-1]["results"]["out"]["files"]
    assert "additional_chat_templates/tool_use.jinja" in named
