"""Recipes that depend on the run: what they set, what a flag overrides, and what is printed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from llama_recipes_local.finetuning import main
from llama_recipes_local.preflight import recipe_values
from llama_recipes_local.preflight.all_problems import _resolved as resolved
from llama_recipes_local.preflight.checks import (
    LOOP,
    QUANTIZATION,
    check_values,
    find_problems,
)
from llama_recipes_local.run import Run


@pytest.fixture
def run_of(tiny_model: Path) -> Any:
    def resolve(**flags: Any) -> Run:
        run, problems = resolved((), {"config": "qlora", "model_name": str(tiny_model), **flags})
        assert problems == []
        assert find_problems(run, (check_values, *LOOP, *QUANTIZATION)) == []
        return run

    return resolve


def test_weights_that_are_stored_in_4_bits_are_left_as_they_are(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "stored")
    path = folder / "config.json"
    stored = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": stored}))
    run, problems = resolved((), {"config": "qlora", "model_name": str(folder)})
    assert problems == [] and find_problems(run, QUANTIZATION) == []
    assert run.train.use_peft and not run.given & set(recipe_values.STORED)


def test_the_papers_settings(run_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_values, "_device", lambda run: "cuda")
    run = run_of()
    train, lora, quantization = run.train, run.peft, run.quantization
    assert (train.use_peft, train.quantization) == (True, "4bit")
    assert (quantization.quant_type, quantization.use_double_quant) == ("nf4", True)
    assert (lora.target_modules, lora.r, lora.lora_alpha) == ("all-linear", 64, 16)
    assert (lora.lora_dropout, train.lr, train.scheduler) == (0.1, 2e-4, "constant")
    assert (train.gradient_clipping, train.gradient_clipping_threshold) == (True, 0.3)
    assert run.fsdp.optimizer == "paged_adamw"
    assert train.gradient_checkpointing is True


@pytest.mark.parametrize(
    ("size", "lr", "dropout"), [(13.02e9, 2e-4, 0.1), (32.5e9, 1e-4, 0.05), (None, 2e-4, 0.1)]
)
def test_rate_and_dropout_follow_the_models_size(
    run_of: Any, monkeypatch: pytest.MonkeyPatch, size: float | None, lr: float, dropout: float
) -> None:
    monkeypatch.setattr(recipe_values, "_parameters", lambda run: size)
    run = run_of()
    assert (run.train.lr, run.peft.lora_dropout) == (lr, dropout)
    assert (f"--lr {lr}  ({size / 1e9:.1f}B parameters)" if size else "--lr 2e-4\n") in run.recipe


def test_a_flag_overrides_the_recipe(run_of: Any) -> None:
    flags = {"lr": 1e-3, "lora_config.r": 8, "quantization_config.quant_type": "fp4"}
    run = run_of(**flags, scheduler="cosine", use_double_quant=False)
    assert (run.train.lr, run.peft.r, run.train.scheduler) == (1e-3, 8, "cosine")
    assert (run.quantization.quant_type, run.quantization.use_double_quant) == ("fp4", False)
    for name in ("--lr", "--r ", "--scheduler", "--quant_type", "--use_double_quant"):
        assert name not in run.recipe
    assert "--lora_alpha 16" in run.recipe


def test_another_method_or_8_bits_drop_settings_of_others(run_of: Any) -> None:
    assert run_of(quantization="8bit").train.quantization == "8bit"
    run = run_of(use_peft=True, peft_method="prefix")
    assert type(run.peft).__name__ == "prefix_config"
    assert "--lora_alpha" not in run.recipe


def test_adamw_where_the_paged_optimiser_does_not_work(
    run_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu = run_of()
    assert on_cpu.fsdp.optimizer == "AdamW"
    assert "--optimizer AdamW  (not paged_adamw: it needs a CUDA device" in on_cpu.recipe
    monkeypatch.setattr(recipe_values, "_device", lambda run: "cuda")
    monkeypatch.setenv("RANK", "0")
    for name in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    sharded = run_of(enable_fsdp=True)
    assert sharded.fsdp.optimizer == "AdamW"
    assert "gradient_checkpointing" not in sharded.recipe
    assert "bitsandbytes cannot update sharded parameters" in sharded.recipe


@pytest.mark.parametrize("flags", [{"preset": "qlora"}, {"train_config.preset": "qlora"}])
def test_the_former_flag_takes_the_same_names(tiny_model: Path, flags: dict[str, str]) -> None:
    run, problems = resolved((), {**flags, "model_name": str(tiny_model)})
    assert problems == [] and run.train.config == "qlora" and run.peft.r == 64


def test_an_unknown_name_of_the_former_flag() -> None:
    run, (problem,) = resolved((), {"preset": "qlore"})
    assert run.recipe == ""
    assert (problem.what, problem.fix) == (
        "unknown --preset qlore",
        "did you mean --config qlora?",
    )
    _, (problem,) = resolved((), {"preset": "qlora", "config": "lora"})
    assert problem.what == "--preset qlora with --config lora"


def test_a_run_trains_with_the_recipe_and_says_so(
    tiny_model: Path, grammar_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(
        model_name=str(tiny_model),
        config="qlora",
        dataset="grammar_dataset",
        data_root=str(grammar_data),
        context_length=128,
        max_train_step=2,
        run_validation=False,
        output_dir=str(tmp_path),
    )
    said = capsys.readouterr().out
    assert "--> Recipe qlora sets (flags win):\n      --use_peft true\n" in said
    assert "4-bit nf4 with double quantisation" in said
    saved = json.loads((tmp_path / "run_config.json").read_text())
    assert saved["train_config"]["config"] == "qlora"
    assert saved["lora_config"]["r"] == 64
    adapter = json.loads((tmp_path / "adapter_config.json").read_text())
    targets = {name.rpartition(".")[2] for name in adapter["target_modules"]}
    assert (adapter["r"], len(targets)) == (64, 7)
    steps = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(step)["lr"] for step in steps] == [2e-4, 2e-4]
    assert all(torch.isfinite(torch.tensor(json.loads(step)["loss"])) for step in steps)


def test_the_first_run_takes_as_many_steps_as_the_machine_can(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_values, "_multiplies_bfloat16", lambda: False)

    def first(device: str, cpus: int = 2, **flags: Any) -> Run:
        monkeypatch.setattr(recipe_values, "_device", lambda run: device)
        monkeypatch.setattr(recipe_values.os, "sched_getaffinity", lambda pid: set(range(cpus)))
        given = {"config": "first_run", "model_name": str(tiny_model), **flags}
        run, problems = resolved((), given)
        assert problems == [] and find_problems(run, (check_values, *LOOP)) == []
        return run

    assert first("cpu", enable_fsdp=True).train.samples == 0
    assert first("cpu", dataset="alpaca_dataset").train.samples == 5
    steps = [first("cpu", cpus).train.max_train_step for cpus in (1, 2, 4, 64)]
    assert steps == sorted(steps) and steps[0] < steps[1] < steps[2] and steps[3] == steps[-1]
    assert "2 CPUs" in first("cpu").recipe
    on_gpu = first("cuda").train
    assert (on_gpu.max_train_step, on_gpu.max_eval_step, on_gpu.num_epochs) == (0, 0, 1)
    for device in ("cpu", "cuda"):
        for dataset in ("grammar_dataset", "samsum_dataset"):
            train = first(device, dataset=dataset).train
            tokens = train.context_length * train.batch_size_training
            assert tokens == (train.context_length if device == "cpu" else 8192)
    monkeypatch.setattr(recipe_values, "_multiplies_bfloat16", lambda: True)
    fast = first("cpu").train
    assert (fast.dtype, fast.max_train_step) == ("bfloat16", 2 * steps[1])
    own = first("cpu", max_train_step="3", lr="1e-5").train
    assert (own.max_train_step, own.lr) == (3, 1e-5)
