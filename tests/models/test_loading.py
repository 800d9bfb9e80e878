"""Models and tokenizers come from local folders, as the run at hand asks for them."""

import copy
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llama_recipes_local import models
from llama_recipes_local.kernels.attention import NAME as DOCUMENTS
from llama_recipes_local.models import loading
from llama_recipes_local.models.loading import local_folder, run_tokenizer
from llama_recipes_local.run import activate
from llama_recipes_local.run.resolution import resolve

LOADERS = (
    models.AutoConfig,
    models.AutoModelForCausalLM,
    models.AutoProcessor,
    models.AutoTokenizer,
    models.LlamaConfig,
    models.LlamaForCausalLM,
    models.MllamaForConditionalGeneration,
)


def load(folder: Path, kwargs: dict[str, Any] | None = None, **flags: Any) -> Any:
    """Load a Llama as ``main`` does, in a run with the given flags."""
    with activate(resolve({"model_name": str(folder), **flags})):
        return models.LlamaForCausalLM.from_pretrained(folder, **(kwargs or {}))


def dtypes(model: torch.nn.Module) -> set[torch.dtype]:
    return {parameter.dtype for parameter in model.parameters()}


@pytest.mark.parametrize("loader", LOADERS, ids=lambda loader: loader.__name__)
def test_a_hub_name_is_not_a_folder(
    loader: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="Llama-2-7b-hf is not a folder") as caught:
        loader.from_pretrained("meta-llama/Llama-2-7b-hf")
    assert str(tmp_path) in str(caught.value)


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(FileNotFoundError, match="local folders only"):
        local_folder(path)


def test_a_folder_may_be_relative_or_below_home(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_model.parent)
    assert local_folder(tiny_model.name) == tiny_model.resolve()
    monkeypatch.setenv("HOME", str(tiny_model.parent))
    assert local_folder(f"~/{tiny_model.name}") == tiny_model.resolve()


@pytest.mark.parametrize("flag", ["model_name", "tokenizer_name"])
def test_main_is_given_the_tokenizer_of_the_data(
    tiny_model: Path, tmp_path: Path, flag: str
) -> None:
    other = shutil.copytree(tiny_model, tmp_path / "other")
    run = resolve({"model_name": str(tiny_model)} | {flag: str(other)})
    prepared = run_tokenizer(run)
    load = models.AutoTokenizer.from_pretrained
    assert load(other) is not prepared
    with activate(run):
        assert load(f"{other}/") is prepared
        assert load(tiny_model) is not prepared
        asked = load(other, padding_side="left")
        assert asked is not prepared and asked.padding_side == "left"
        run.tokenizer = None
        assert load(other) is not prepared


def test_what_a_class_loads_is_an_instance_of_it(tiny_model: Path) -> None:
    model = models.LlamaForCausalLM.from_pretrained(tiny_model)
    assert isinstance(model, models.LlamaForCausalLM)
    assert isinstance(model, models.AutoModelForCausalLM)
    assert not isinstance(model, models.MllamaForConditionalGeneration)
    config = models.AutoConfig.from_pretrained(tiny_model)
    assert isinstance(config, models.AutoConfig) and isinstance(config, models.LlamaConfig)
    assert isinstance(models.AutoTokenizer.from_pretrained(tiny_model), models.AutoTokenizer)
    assert not isinstance(config, models.AutoTokenizer)


def test_code_in_a_model_folder_is_never_run(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    proof = tmp_path / "it ran"
    (folder / "remote.py").write_text(f"open({os.fspath(proof)!r}, 'w')\n")
    config = (folder / "config.json").read_text()
    auto_map = '{"auto_map": {"AutoModelForCausalLM": "remote.Model", "AutoConfig": "remote.C"},'
    (folder / "config.json").write_text(config.replace("{", auto_map, 1))
    models.AutoConfig.from_pretrained(folder)
    models.AutoModelForCausalLM.from_pretrained(folder)
    assert not proof.exists()


def test_pickled_weights_are_not_read(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    weights = transformers.LlamaForCausalLM.from_pretrained(tiny_model).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        models.LlamaForCausalLM.from_pretrained(folder)


def test_a_run_on_cpu_loads_float32(tiny_model: Path) -> None:
    assert dtypes(load(tiny_model, {"torch_dtype": torch.bfloat16})) == {torch.float32}


def test_a_run_loads_the_dtype_it_names(tiny_model: Path) -> None:
    assert dtypes(load(tiny_model, dtype="bfloat16")) == {torch.bfloat16}


@pytest.mark.parametrize("flags", [{}, {"top_layers": 1}, {"low_cpu_fsdp": True}], ids=str)
def test_positions_are_what_they_are_when_weights_are_cast(
    tiny_model: Path, flags: dict[str, Any]
) -> None:
    """As ``main`` casts with pure_bf16; rounded frequencies turn position 8192 by any angle."""
    model = load(tiny_model, **flags)
    arguments = torch.zeros(1), torch.tensor([[8192]])
    expected = model.model.rotary_emb(*arguments)
    cast = copy.deepcopy(model).to(torch.bfloat16)
    assert dtypes(cast) == {torch.bfloat16}
    turned = cast.model.rotary_emb(*arguments)
    assert all(ours.equal(theirs) for ours, theirs in zip(turned, expected, strict=True))
    assert cast.to("meta").model.rotary_emb.inv_freq.is_meta


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_without_a_run_the_callers_dtype_counts(tiny_model: Path, name: str) -> None:
    model = models.LlamaForCausalLM.from_pretrained(tiny_model, **{name: torch.bfloat16})
    assert dtypes(model) == {torch.bfloat16}


def test_without_a_run_the_callers_kernel_counts(tiny_model: Path) -> None:
    model = models.LlamaForCausalLM.from_pretrained(tiny_model, attn_implementation="eager")
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [("auto", DOCUMENTS), (DOCUMENTS, DOCUMENTS), ("sdpa", "sdpa"), ("eager", "eager")],
)
def test_a_run_chooses_the_attention_kernel(tiny_model: Path, chosen: str, expected: str) -> None:
    model = load(tiny_model, {"attn_implementation": "sdpa"}, attn_implementation=chosen)
    assert model.config._attn_implementation == expected


def test_a_run_trains_without_a_cache(tiny_model: Path) -> None:
    # what main passes without FSDP is None, which transformers takes for a value
    assert load(tiny_model, {"use_cache": None}).config.use_cache is False


def test_options_of_none_were_not_chosen(tiny_model: Path) -> None:
    options = {"use_cache": None, "quantization_config": None, "device_map": None}
    model = models.LlamaForCausalLM.from_pretrained(tiny_model, **options)
    assert model.config.use_cache is True


@pytest.mark.parametrize("enable_fsdp", [False, True])
def test_frozen_layers_come_frozen(tiny_model: Path, enable_fsdp: bool) -> None:
    model = load(tiny_model, freeze_layers=True, num_freeze_layers=1, enable_fsdp=enable_fsdp)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name in trained | frozen if name.startswith("model.layers.0.")}
    assert frozen
    assert trained


def test_adapters_leave_the_layers_as_they_are(tiny_model: Path) -> None:
    model = load(tiny_model, freeze_layers=True, num_freeze_layers=1, use_peft=True)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_nothing_is_frozen_unless_asked(tiny_model: Path) -> None:
    assert all(parameter.requires_grad for parameter in load(tiny_model).parameters())


@pytest.mark.parametrize(
    ("flags", "on_device"),
    [({}, False), ({"freeze_layers": True}, True), ({"use_peft": True}, True)],
    ids=str,
)
def test_weights_that_are_kept_in_fp8_go_to_the_device_first_and_trained_ones_are_sharded(
    tiny_model: Path, flags: dict[str, Any], on_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def load_weights(cls: Any, name: Any, **kwargs: Any) -> Any:
        asked.update(kwargs)
        raise InterruptedError

    monkeypatch.setattr(loading, "device_type", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(loading, "_load", load_weights)
    with pytest.raises(InterruptedError):
        load(tiny_model, fp8=True, enable_fsdp=True, **flags)
    assert ("device_map" in asked) == on_device
