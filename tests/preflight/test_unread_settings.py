"""Flags that a run does not read, because of its other flags, are refused or named."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.fields import defaults, field_names
from llama_recipes_local.preflight.checks import CHECKS, find_problems
from llama_recipes_local.preflight.config_file import Configured
from llama_recipes_local.preflight.group_sizes import group_sizes
from llama_recipes_local.preflight.recipe_values import with_values
from llama_recipes_local.preflight.unread_settings import check_data_settings, unread
from llama_recipes_local.run.resolution import resolve

ALONE = [name for name in DATASETS if name != "mixed_dataset"]
MIXTURE = {"dataset": "mixed_dataset", "sources": "samsum_dataset:1,local_dataset:1"}


@pytest.mark.parametrize("dataset", ALONE)
def test_a_setting_of_another_data_set_is_refused(dataset: str) -> None:
    own, compared = field_names(DATASETS[dataset].config), 0
    for owner in ALONE:
        for name, value in defaults(DATASETS[owner].config).items():
            if name in ("dataset", "data_root"):
                continue
            for flag, read in ((name, name in own), (f"{owner}.{name}", owner == dataset)):
                found = check_data_settings(resolve({"dataset": dataset, flag: value}))
                whats = [] if read else [f"--{flag} with --dataset {dataset}"]
                assert [problem.what for problem in found] == whats
                compared += 1
    assert compared > 40


def test_the_settings_of_a_mixtures_sources_are_read() -> None:
    assert not check_data_settings(resolve(MIXTURE | {"local_dataset.labels": "all"}))
    run = resolve(MIXTURE | {"grammar_dataset.train_split": "x.csv"})
    (problem,) = check_data_settings(run)
    assert problem.why == "it would be ignored: it is a setting of grammar_dataset"
    assert problem in find_problems(run, CHECKS)


def test_a_file_of_settings_may_have_those_of_other_data() -> None:
    settings = {"local_dataset.labels": "all", "seed": 3}
    run = resolve(settings | {"dataset": "grammar_dataset"})
    configured = Configured(run.flags, settings, name="run_config.json", is_record=True)
    found = with_values(run, configured, {})
    assert found.flags == {"seed": 3, "dataset": "grammar_dataset"}
    assert "labels" not in found.recipe


SHARDS = {"dist_checkpoint_root_folder": "x", "checkpoint_type": "FULL_STATE_DICT"}


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (SHARDS | {"enable_fsdp": True, "use_peft": True}, [*SHARDS]),
        (SHARDS | {"enable_fsdp": True, "save_model": False}, [*SHARDS]),
        (SHARDS | {"enable_fsdp": True}, []),
        ({"dist_checkpoint_folder": "x"}, ["dist_checkpoint_folder"]),
        ({"enable_fsdp": True, "use_peft": True, "save_optimizer": True}, ["save_optimizer"]),
        ({"run_validation": False, "val_batch_size": 2}, ["val_batch_size"]),
        ({"val_batch_size": 2, "max_eval_step": 2}, []),
        ({"process_group_timeout": 60}, ["process_group_timeout"]),
        ({"one_gpu": True}, ["one_gpu"]),
    ],
)
def test_a_flag_without_effect_is_named(flags: dict[str, Any], named: list[str]) -> None:
    said = unread(resolve(flags))
    assert re.findall(r"--(\w+)", said) == named


def test_groups_need_the_strategy_that_has_them() -> None:
    sizes = {"hsdp": True, "replica_group_size": 2, "sharding_group_size": 2}
    (problem,) = group_sizes(resolve(sizes | {"enable_fsdp": True}), 4)
    assert problem.what == "--hsdp with --sharding_strategy FULL_SHARD"
    assert not group_sizes(resolve(sizes | {"sharding_strategy": "HYBRID_SHARD"}), 4)


def test_code_in_a_models_folder_is_named(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    for more, named in (({}, False), ({"auto_map": {"AutoModelForCausalLM": "own.Model"}}, True)):
        config.write_text(json.dumps({"model_type": "llama", **more}))
        said = unread(resolve({"model_name": str(tmp_path)}))
        assert said.startswith("--> not run: code that the model's config.json names") is named
