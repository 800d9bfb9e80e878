"""Adapters, models and parameters of one process: where they are saved, and that they load."""

import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from llama_recipes_local import adapters, configs
from llama_recipes_local import model_checkpointing as checkpoints
from llama_recipes_local.model_checkpointing import saved_adapter
from llama_recipes_local.optimization.optimizers import make_optimizer

IDS = torch.arange(3, 40).unsqueeze(0)


@pytest.fixture
def adapted(tiny_model: Path) -> peft.PeftModel:
    """The tiny model with an adapter that changes what it says."""
    return with_adapter(tiny_model)


def with_adapter(folder: Path) -> peft.PeftModel:
    torch.manual_seed(0)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False)
    return peft.get_peft_model(model, config).eval()


@pytest.mark.parametrize("is_trainable", [False, True])
def test_a_reloaded_adapter_has_equal_logits(
    adapted: peft.PeftModel, tiny_model: Path, tmp_path: Path, is_trainable: bool
) -> None:
    checkpoints.save_peft_checkpoint(adapted, tmp_path)
    base = LlamaForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    reloaded = adapters.PeftModel.from_pretrained(base, tmp_path, is_trainable=is_trainable).eval()
    with torch.no_grad():
        expected = adapted(IDS).logits
        assert reloaded(IDS).logits.equal(expected)
        with adapted.disable_adapter():
            assert not adapted(IDS).logits.equal(expected)
    trainable = {name for name, p in reloaded.named_parameters() if p.requires_grad}
    assert bool(trainable) == is_trainable


def test_an_adapter_is_safetensors_and_json(adapted: peft.PeftModel, tmp_path: Path) -> None:
    checkpoints.save_peft_checkpoint(adapted, str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "base_model.json",
    }


def test_only_what_is_trained_is_in_an_adapter(adapted: peft.PeftModel, tmp_path: Path) -> None:
    checkpoints.save_peft_checkpoint(adapted, tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert len(tensors) == 8
    assert all("lora_" in name for name in tensors)


def test_only_what_is_trained_is_gathered(
    adapted: peft.PeftModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered = []
    monkeypatch.setattr(
        saved_adapter, "full_tensor", lambda tensor: gathered.append(tensor) or tensor
    )
    checkpoints.save_peft_checkpoint(adapted, tmp_path)
    assert len(gathered) == 8


def test_saving_again_replaces_the_adapter(adapted: peft.PeftModel, tmp_path: Path) -> None:
    checkpoints.save_peft_checkpoint(adapted, tmp_path)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(1)
    checkpoints.save_peft_checkpoint(adapted, tmp_path)
    state = peft.get_peft_model_state_dict(adapted)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert all(tensor.equal(state[name]) for name, tensor in tensors.items())


def test_an_adapter_is_saved_when_its_base_model_has_moved(
    tiny_model: Path, tmp_path: Path
) -> None:
    # PEFT would ask the Hub for the base model's vocabulary then (peft issue 1452)
    moved = shutil.copytree(tiny_model, tmp_path / "base")
    adapted = with_adapter(moved)
    shutil.rmtree(moved)
    checkpoints.save_peft_checkpoint(adapted, tmp_path / "out")
    assert len(load_file(tmp_path / "out" / "adapter_model.safetensors")) == 8


def test_a_saved_model_loads_in_plain_transformers(tiny_model: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    checkpoints.save_model_checkpoint(model, tmp_path / "out")
    reloaded = LlamaForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    state = model.state_dict()
    assert all(tensor.equal(state[name]) for name, tensor in reloaded.state_dict().items())
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".safetensors"}


def test_a_models_weights_are_one_file_because_several_are_not_renamed_at_once(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    save = model.save_pretrained

    def in_small_shards(folder: Path, **options: Any) -> None:
        save(folder, **{"max_shard_size": "10KB"} | options)

    monkeypatch.setattr(model, "save_pretrained", in_small_shards)
    checkpoints.save_model_checkpoint(model, tmp_path / "out")
    weights = [path.name for path in (tmp_path / "out").glob("*.safetensors*")]
    assert weights == ["model.safetensors"]


@pytest.mark.parametrize("name", ["/models/a/llama", "models/llama", "llama", "llama/"])
def test_checkpoints_are_named_by_the_last_part_of_the_models_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    config = configs.train_config(model_name=name, dist_checkpoint_root_folder="root")
    assert checkpoints.checkpoint_folder(config) == tmp_path / "root" / "fine-tuned-llama"


def test_parameters_are_plain_yaml_in_the_checkpoints_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train = configs.train_config(model_name="/models/llama", output_dir="ä: #1", lr=2e-5)
    fsdp = configs.fsdp_config()
    checkpoints.save_train_params(train, fsdp, rank=0)
    path = tmp_path / "checkpoints" / "fine-tuned-llama" / "train_params.yaml"
    params = yaml.safe_load(path.read_text("utf-8"))
    assert params["model_name"] == "/models/llama"
    assert params["output_dir"] == "ä: #1"
    assert params["lr"] == "2e-05"
    assert params["sharding_strategy"] == "ShardingStrategy.FULL_SHARD"
    assert params.keys() == vars(train).keys() | vars(fsdp).keys()


def test_parameters_do_not_touch_the_checkpoint_next_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train = configs.train_config(model_name="/models/llama")
    folder = checkpoints.checkpoint_folder(train)
    folder.mkdir(parents=True)
    (folder / "shard.safetensors").write_text("kept")
    checkpoints.save_train_params(train, configs.fsdp_config(), rank=0)
    assert (folder / "shard.safetensors").read_text() == "kept"
    assert len(list(folder.iterdir())) == 2


def test_other_ranks_write_no_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train = configs.train_config(model_name="/models/llama")
    checkpoints.save_train_params(train, configs.fsdp_config(), rank=1)
    assert list(tmp_path.iterdir()) == []


def test_a_models_checkpoint_loads_on_the_first_rank(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Config:
        checkpoint_folder = str(tmp_path)
        checkpoint_model_filename = "model.safetensors"

    model = torch.nn.Linear(2, 2)
    checkpoints.load_model_checkpoint(model, 0, Config)
    assert f"no model checkpoint at {tmp_path}" in capsys.readouterr().out
    state = {name: torch.full_like(tensor, 3) for name, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    checkpoints.load_model_checkpoint(model, 1, Config)
    assert not model.weight.eq(3).any()
    checkpoints.load_model_checkpoint(model, 0, Config)
    assert model.weight.eq(3).all()
    assert model.bias.eq(3).all()


def test_a_missing_optimizer_checkpoint_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "optimizer.safetensors"
    assert checkpoints.load_optimizer_checkpoint(torch.nn.Linear(1, 1), path, 0) is None
    assert str(path) in capsys.readouterr().out


def test_an_optimizer_whose_parameters_share_a_table_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bitsandbytes")
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
    optimizer = make_optimizer("adamw_8bit", list(model.parameters()), 1e-2, 0.0)
    model(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    cfg = configs.train_config(model_name="m", dist_checkpoint_root_folder="root")
    checkpoints.save_optimizer_checkpoint(model, optimizer, 0, cfg, epoch=0)
    (path,) = (tmp_path / "root").rglob("*.safetensors")
    saved = load_file(path)
    for name in ("0.weight", "1.weight"):
        state = optimizer.state[model.get_parameter(name)]
        for key in ("qmap1", "qmap2", "state1", "absmax1"):
            (found,) = (v for k, v in saved.items() if name in k and k.endswith(key))
            assert torch.equal(found, state[key])
