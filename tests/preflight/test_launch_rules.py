"""How a run is started; see test_bad_input for the reports."""

from typing import Any

import pytest
import torch

from llama_recipes_local.preflight.checks import (
    LAUNCH,
    LOOP,
    METHOD,
    PRECISION,
    check_values,
    find_problems,
)
from llama_recipes_local.preflight.launch_rules import check_devices
from llama_recipes_local.preflight.precision_rules import check_float16
from llama_recipes_local.run.resolution import resolve

TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

HYBRID = {"hsdp": True, "sharding_strategy": "HYBRID_SHARD"}


def problems_of(**flags: Any) -> list[str]:
    checks = (check_values, *LAUNCH, *PRECISION, *LOOP, *METHOD)
    return [problem.what for problem in find_problems(resolve(flags), checks)]


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN:
        monkeypatch.setenv(name, "0" if name == "RANK" else "1")


@pytest.mark.usefixtures("torchrun")
def test_several_ranks_need_fsdp_and_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems_of() == []
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert problems_of() == ["torchrun without --enable_fsdp"]
    assert problems_of(enable_fsdp=True) == []


def test_the_defaults_have_no_problem() -> None:
    assert problems_of() == []


@pytest.mark.parametrize("method", ["lora", "llama_adapter"])
def test_adapters_that_exist_have_no_problem(method: str) -> None:
    assert problems_of(use_peft=True, peft_method=method) == []


@pytest.mark.usefixtures("torchrun")
def test_fsdp_under_torchrun_has_no_problem() -> None:
    assert problems_of(enable_fsdp=True, use_peft=True) == []


@pytest.mark.parametrize("missing", TORCHRUN)
@pytest.mark.usefixtures("torchrun")
def test_fsdp_needs_each_of_torchruns_variables(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(missing)
    (problem,) = problems_of(enable_fsdp=True)
    assert problem.endswith(" in the environment")


def test_fsdp_needs_torchrun() -> None:
    assert problems_of(enable_fsdp=True) == [
        "--enable_fsdp in a process that torchrun did not start"
    ]


def test_float16_with_cuda_has_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert check_float16(resolve({"use_fp16": True})) == []


@pytest.mark.parametrize(
    "name",
    [
        "batch_size_training",
        "val_batch_size",
        "gradient_accumulation_steps",
        "num_epochs",
        "lr",
    ],
)
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_above_zero(name: str, value: int) -> None:
    assert problems_of(**{name: value}) == [f"--{name} is {value:{'.1f' if name == 'lr' else ''}}"]


@pytest.mark.parametrize(
    "name", ["max_train_step", "max_eval_step", "num_workers_dataloader", "weight_decay"]
)
def test_numbers_that_may_be_zero(name: str) -> None:
    assert problems_of(**{name: 0}) == []
    (problem,) = problems_of(**{name: -1})
    assert problem.startswith(f"--{name} is -1")


def test_an_adapters_method_without_the_adapter() -> None:
    assert problems_of(peft_method="lora") == ["--peft_method lora without --use_peft"]
    assert problems_of(peft_method="lora", **{"train_config.use_peft": True}) == []


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ({"hsdp": True, "sharding_group_size": 2, "replica_group_size": 2}, "--hsdp with"),
        ({"use_profiler": True, "flop_counter": True}, "--use_profiler with --flop_counter"),
        ({"use_profiler": True, "max_train_step": 6}, "--max_train_step 6"),
        ({"flop_counter": True, "max_train_step": 3}, "--max_train_step 3"),
    ],
)
def test_settings_that_would_fail_later_are_found_now(flags: dict[str, Any], what: str) -> None:
    (problem,) = problems_of(**flags)
    assert problem.startswith(what)


@pytest.mark.parametrize(
    "flags",
    [
        HYBRID | {"sharding_group_size": 1, "replica_group_size": 1},
        {"use_profiler": True, "max_train_step": 7},
        {"flop_counter": True, "max_train_step": 4},
        {"flop_counter": True},
    ],
)
def test_the_nearest_valid_settings_have_no_problem(flags: dict[str, Any]) -> None:
    assert problems_of(**flags) == []


@pytest.mark.parametrize("processes", ["2", "4"])
def test_a_process_needs_a_device(processes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    problems = check_devices(resolve({}))
    if processes == "2":
        assert problems == []
    else:
        (problem,) = problems
        assert problem.what == "4 processes on this host"
        assert problem.fix == "use --nproc_per_node 2"


def test_without_cuda_any_number_of_processes_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert check_devices(resolve({})) == []
