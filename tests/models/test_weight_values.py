"""NaN and zeros that the first look at a folder does not meet are found when it is loaded."""

import shutil
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from llama_recipes_local import cli
from llama_recipes_local.errors import UsageError
from llama_recipes_local.models import AutoModelForCausalLM, LlamaForCausalLM
from llama_recipes_local.models.folder_checks import check_stored_model
from llama_recipes_local.preflight.saved_adapter_rules import check_saved_adapter
from llama_recipes_local.run.resolution import resolve

EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def spoil(file: Path, name: str, number: float) -> None:
    tensors = load_file(file)
    tensors[name].view(-1)[0] = number
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.fixture
def adapter(folder: Path, tmp_path: Path) -> Path:
    model = LlamaForCausalLM.from_pretrained(folder)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
@pytest.mark.parametrize("loader", [LlamaForCausalLM, AutoModelForCausalLM])
def test_a_number_that_is_not_finite_is_found_in_loading(
    number: float, loader: type[AutoModelForCausalLM], folder: Path
) -> None:
    spoil(folder / "model.safetensors", EMBEDDING, number)
    assert not check_stored_model(folder)  # the first number is not among those looked at
    with pytest.raises(UsageError, match=f"NaN or infinite numbers: {EMBEDDING}"):
        loader.from_pretrained(folder)


def test_a_merge_that_is_not_finite_is_refused_and_leaves_nothing(
    folder: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["merge", "--adapter", str(adapter), "--model", str(folder)]
    spoil(folder / "model.safetensors", EMBEDDING, float("nan"))
    assert cli.main([*words, "--out", str(tmp_path / "merged")]) == 2
    said = capsys.readouterr().err
    assert f"{EMBEDDING} is not finite" in said and "what was written is removed" in said
    assert not [path for path in tmp_path.iterdir() if "merged" in path.name]


def test_an_adapter_that_is_not_finite_is_refused(
    folder: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    spoil(adapter / "adapter_model.safetensors", name, float("nan"))
    merging = ["merge", "--adapter", str(adapter), "--out", str(tmp_path / "merged")]
    generating = ["generate", "--adapter", str(adapter), "--prompt", "a"]
    for words in (merging, generating):
        assert cli.main(words) == 2
        assert f"NaN or infinite numbers: {name}" in capsys.readouterr().err
    flags = {"model_name": str(folder), "use_peft": True, "from_peft_checkpoint": str(adapter)}
    (problem,) = check_saved_adapter(resolve(flags))
    assert name in problem.why and str(adapter) in problem.what


def test_a_layer_with_one_matrix_of_zeros_is_no_new_one(folder: Path) -> None:
    name = "model.layers.1.self_attn.o_proj.weight"
    tensors = load_file(folder / "model.safetensors")
    tensors[name].zero_()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=f"zero throughout: {name}"):
        LlamaForCausalLM.from_pretrained(folder)


def test_layers_that_change_nothing_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(folder / "model.safetensors")
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        tensors[f"model.layers.1.{name}.weight"].zero_()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    LlamaForCausalLM.from_pretrained(folder)
    said = "--> Layers that change nothing, as new ones do: model.layers.1"
    assert said in capsys.readouterr().out
    assert torch.isfinite(tensors[EMBEDDING]).all()
