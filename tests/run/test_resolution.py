"""From flags to the configurations of a run."""

import json
from pathlib import Path

import pytest
import torch

from llama_recipes_local import configs, field_values
from llama_recipes_local._upstream import load
from llama_recipes_local.run import activate, active_run, resolution
from llama_recipes_local.run.record import save_description


def test_a_flag_reaches_every_configuration_that_has_the_field() -> None:
    resolved = resolution.resolve({"use_fp16": True, "mixed_precision": False})
    assert resolved.train.use_fp16 is True and resolved.fsdp.use_fp16 is True
    assert resolved.train.mixed_precision is False and resolved.fsdp.mixed_precision is False


def test_a_dotted_flag_reaches_one_configuration_alone() -> None:
    resolved = resolution.resolve({"fsdp_config.use_fp16": True})
    assert resolved.fsdp.use_fp16 is True and resolved.train.use_fp16 is False


def test_a_source_of_a_mixture_has_its_own_name() -> None:
    mixture = "grammar_dataset:2,/data/rows.jsonl:1"
    flags = {"dataset": "mixed_dataset", "mixed_dataset.sources": mixture}
    named = [source.config.dataset for source in resolution.resolve(flags).sources]
    assert named == ["grammar_dataset", "local_dataset"]


def test_flags_reach_the_data_set_and_the_adapter() -> None:
    flags = {
        "dataset": "grammar_dataset",
        "grammar_dataset.train_split": "mine.csv",
        "alpaca_dataset.data_path": "not this one",
        "use_peft": True,
        "r": 4,
        "lora_config.target_modules": "q_proj,k_proj",
    }
    resolved = resolution.resolve(flags)
    assert resolved.dataset == configs.grammar_dataset(train_split="mine.csv")
    assert resolved.peft == configs.lora_config(r=4, target_modules=["q_proj", "k_proj"])
    assert resolved.flags == flags


def test_the_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = {"output_dir": "~/x", "train_config.model_name": "~/Llama", "data_root": "./~/x"}
    resolved = resolution.resolve(given)
    assert resolved.train.output_dir == "/home/me/x"
    assert resolved.train.model_name == "/home/me/Llama"
    assert resolved.train.data_root == "./~/x"
    # upstream's main reads the flags once more
    assert resolved.flags["output_dir"] == "/home/me/x"


def test_there_is_no_adapter_without_use_peft() -> None:
    assert resolution.resolve({"peft_method": "lora"}).peft is None
    assert resolution.resolve({"use_peft": True, "peft_method": "llama_adapter"}).peft == (
        configs.llama_adapter_config()
    )


def test_an_unknown_data_set_or_adapter_is_none() -> None:
    resolved = resolution.resolve(
        {"dataset": "no_such", "use_peft": True, "peft_method": "no_such"}
    )
    assert resolved.dataset is None and resolved.peft is None
    assert len(resolved.configurations()) == 4


def test_values_become_their_fields_types() -> None:
    resolved = resolution.resolve(
        {"num_epochs": "2", "lr": 1, "model_name": 7, "quant_storage": "uint8"}
    )
    assert (resolved.train.num_epochs, resolved.train.lr) == (2, 1.0)
    assert resolved.train.model_name == "7"
    assert resolved.quantization.quant_storage is torch.uint8


def test_a_wrong_value_names_its_flag() -> None:
    with pytest.raises(ValueError, match="--num_epochs many: expected an integer"):
        resolution.resolve({"num_epochs": "many"})


def test_update_config_is_upstreams_with_types() -> None:
    flags = {"lr": 0.5, "train_config.seed": 7, "fsdp_config.use_fp16": True, "unknown": 1}
    ours, theirs = configs.train_config(), load("configs").train_config()
    field_values.update_config((ours, configs.fsdp_config()), **flags)
    load("utils.config_utils").update_config((theirs, configs.fsdp_config()), **flags)
    assert (ours.lr, ours.seed) == (theirs.lr, theirs.seed) == (0.5, 7)
    assert ours.use_fp16 is theirs.use_fp16 is False
    assert not hasattr(ours, "unknown")


def test_the_run_is_active_inside_its_block_only() -> None:
    resolved = resolution.resolve({})
    assert active_run() is None
    with pytest.raises(RuntimeError), activate(resolved):
        assert active_run() is resolved
        raise RuntimeError
    assert active_run() is None


def test_the_description_is_json_of_everything_resolved(tmp_path: Path) -> None:
    flags = {"dataset": "samsum_dataset", "use_peft": True, "sharding_strategy": "NO_SHARD"}
    save_description(resolution.resolve(flags), tmp_path / "run.json")
    described = json.loads((tmp_path / "run.json").read_text("utf-8"))
    assert described["train_config"]["use_peft"] is True
    assert described["fsdp_config"]["sharding_strategy"] == "ShardingStrategy.NO_SHARD"
    assert described["quantization_config"]["compute_dtype"] == "torch.bfloat16"
    assert described["lora_config"]["target_modules"] == ["q_proj", "v_proj"]
    assert described["samsum_dataset"]["data_path"] == "datasets/samsum/"
    assert described["versions"]["torch"] == torch.__version__
    assert described["upstream"]["lock"].startswith("llama-recipes==")
    assert "finetuning-collaborators.patch" in described["upstream"]["patches"]


def test_the_data_root_reaches_the_data_set() -> None:
    for flag in ("data_root", "train_config.data_root", "samsum_dataset.data_root"):
        resolved = resolution.resolve({flag: "elsewhere"})
        assert resolved.dataset is not None and resolved.dataset.data_root == "elsewhere"
    given = {"data_root": "of-all", "samsum_dataset.data_root": "its-own"}
    resolved = resolution.resolve(given)
    assert resolved.dataset is not None and resolved.dataset.data_root == "its-own"
