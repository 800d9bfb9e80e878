"""Settings that go together, and the few that do not; see test_bad_input for the reports."""

from typing import Any

import pytest
import torch

from llama_recipes_local.preflight.rules import check_rules
from llama_recipes_local.run.resolution import resolve

TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def problems_of(**flags: Any) -> list[str]:
    return [problem.what for problem in check_rules(resolve(flags))]


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN:
        monkeypatch.setenv(name, "1")


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
    assert problems_of(enable_fsdp=True) == [
        "--enable_fsdp in a process that torchrun did not start"
    ]


def test_float16_with_cuda_has_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert problems_of(use_fp16=True) == []


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
        {"hsdp": True, "sharding_group_size": 1, "replica_group_size": 1},
        {"use_profiler": True, "max_train_step": 7},
        {"flop_counter": True, "max_train_step": 4},
        {"flop_counter": True},
    ],
)
def test_their_neighbours_have_no_problem(flags: dict[str, Any]) -> None:
    assert problems_of(**flags) == []
