"""The configuration classes are upstream's, field by field, but for what is listed here."""

import dataclasses
import inspect
from typing import Any

import pytest
import torch

from llama_recipes_local import _upstream, configs

UPSTREAM = {
    "train_config": "configs.training",
    "fsdp_config": "configs.fsdp",
    "lora_config": "configs.peft",
    "llama_adapter_config": "configs.peft",
    "prefix_config": "configs.peft",
    "quantization_config": "configs.quantization",
    "wandb_config": "configs.wandb",
    "samsum_dataset": "configs.datasets",
    "grammar_dataset": "configs.datasets",
    "alpaca_dataset": "configs.datasets",
    "custom_dataset": "configs.datasets",
    "llamaguard_toxicchat_dataset": "configs.datasets",
}
# What ours has instead of upstream's: other defaults, new fields, and one that nothing needs.
DIFFERENCES: dict[str, dict[str, Any]] = {
    "train_config": {
        "model_name": "",
        "output_dir": "outputs",
        "dist_checkpoint_root_folder": "checkpoints",
        "profiler_dir": "profiles",
        "config": "",
        "data_root": "",
        "data_cache": "",
        "dtype": "auto",
        "attn_implementation": "auto",
        "scheduler": "step",
        "loraplus_lr_ratio": 0.0,
        "warmup_steps": 0,
        "min_lr_ratio": 0.0,
        "wsd_decay_ratio": 0.1,
        "eval_steps": 0,
        "report_to": [],
        "save_steps": 0,
        "save_total_limit": 0,
        "async_save": False,
        "gradient_checkpointing": False,
        "resume_from_checkpoint": "",
        "resume_despite": [],
        "train_only": "",
        "top_layers": 0,
    },
    "lora_config": {
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
    },
    "wandb_config": {"mode": "offline", "id": None, "resume": None},
    "samsum_dataset": {"data_root": "", "data_path": "datasets/samsum/"},
    "grammar_dataset": {
        "data_root": "",
        "train_split": "datasets/grammar/gtrain_10k.csv",
        "test_split": "datasets/grammar/grammar_validation.csv",
    },
    "alpaca_dataset": {"data_root": "", "data_path": "datasets/alpaca_data.json"},
    "custom_dataset": {"data_root": "", "file": "datasets/custom_dataset.py"},
    "llamaguard_toxicchat_dataset": {"data_root": "", "data_path": "datasets/toxic-chat/"},
}


def settings(cls: type) -> dict[str, Any]:
    """Every setting of a configuration with its default, also one declared without a type."""
    instance = cls()
    return {
        name: value
        for name, value in inspect.getmembers(instance)
        if not name.startswith("_") and not callable(value)
    }


@pytest.mark.parametrize("name", UPSTREAM)
def test_fields_and_defaults_are_upstreams(name: str) -> None:
    ours = settings(getattr(configs, name))
    expected = settings(getattr(_upstream.load(UPSTREAM[name]), name))
    expected |= DIFFERENCES.get(name, {})
    # a new field may be added without a line here
    assert ours.keys() >= expected.keys()
    assert {name: ours[name] for name in expected} == expected


@pytest.mark.parametrize("name", UPSTREAM)
def test_every_setting_is_a_field(name: str) -> None:
    cls = getattr(configs, name)
    assert cls.__name__ == name
    assert {field.name for field in dataclasses.fields(cls)} == set(settings(cls))


def test_every_class_of_upstreams_is_there() -> None:
    theirs = [_upstream.load("configs"), _upstream.load("configs.datasets")]
    names = {
        name
        for module in theirs
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__.startswith(_upstream.VENDORED)
    }
    assert names == set(UPSTREAM)
    assert names < set(configs.__all__)


def test_the_data_sets_are_found_where_upstream_has_them() -> None:
    assert configs.datasets.samsum_dataset is configs.samsum_dataset


def test_no_default_leads_to_upstreams_placeholders() -> None:
    for name in UPSTREAM:
        values = [str(value) for value in settings(getattr(configs, name)).values()]
        assert not [value for value in values if value.startswith(("PATH/", "src/", "recipes/"))]


def test_two_configurations_share_no_list() -> None:
    one, other = configs.lora_config(), configs.lora_config()
    one.target_modules.append("k_proj")
    assert other.target_modules == ["q_proj", "v_proj"]


def test_a_data_set_of_ours_is_configured_as_upstreams_are() -> None:
    guanaco = configs.datasets.guanaco_dataset()
    assert guanaco.dataset == type(guanaco).__name__
    assert guanaco.data_path == "datasets/openassistant-guanaco"
    assert {"dataset", "train_split", "test_split"} < set(settings(type(guanaco)))


def test_what_is_imported_late_is_the_librarys_own() -> None:
    from torch.distributed.fsdp import ShardingStrategy, StateDictType

    assert configs.fsdp_config.sharding_strategy is ShardingStrategy.FULL_SHARD
    assert configs.fsdp_config().checkpoint_type is StateDictType.SHARDED_STATE_DICT
    assert configs.fsdp.ShardingStrategy is ShardingStrategy
    assert configs.quantization_config.quant_storage is torch.bfloat16
    config = configs.fsdp_config(sharding_strategy=ShardingStrategy.NO_SHARD)
    assert dataclasses.replace(config, hsdp=True).sharding_strategy is ShardingStrategy.NO_SHARD


def test_4_bit_weights_are_configured_as_upstream_does() -> None:
    theirs = _upstream.load("configs.quantization").quantization_config()
    ours = configs.quantization_config()
    for bits in ("4bit", "8bit"):
        assert ours.create_bnb_config(bits).to_dict() == theirs.create_bnb_config(bits).to_dict()
