"""A run that ``--max_train_step`` ended within an epoch is continued where it was."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from llama_recipes_local import finetuning

pytestmark = pytest.mark.slow

VARYING = ("seconds", "tokens_per_second", "tflops", "mfu", "memory_gib", "data_seconds")


def run(flags: dict[str, Any], output: Path, steps: int, **more: Any) -> list[dict[str, Any]]:
    """Train up to a step; return what was logged of each step, without times."""
    finetuning.main(**flags, **more, output_dir=str(output), max_train_step=steps)
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in VARYING} for line in lines]


def test_a_run_continues_in_the_epoch_that_a_step_limit_ended(
    tiny_run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = tiny_run | {
        "batching_strategy": "padding",
        "batch_size_training": 10,
        "context_length": 128,
        "use_peft": True,
        "lr": 1e-2,
        "num_epochs": 2,
        "save_steps": 2,
        "lora_dropout": 0.1,
    }
    again = {"resume_from_checkpoint": "auto"}
    straight, out = run(flags, tmp_path / "straight", 8), tmp_path / "limited"
    assert [step["step"] for step in straight] == [*range(1, 9)]
    assert straight[5]["epoch"] == 1 and straight[6]["lr"] < straight[5]["lr"]  # six an epoch
    assert run(flags, out, 2) == straight[:2]
    assert run(flags, out, 4, **again) == straight[:4]
    expected = {line for line in capsys.readouterr().out.splitlines() if "train_loss" in line}
    assert run(flags, out, 4, **again) == straight[:4]
    printed = capsys.readouterr().out
    assert "this run is complete after step 4 of 4: nothing is trained" in printed
    assert "more than --max_train_step 4 continues it" in printed
    assert {line for line in printed.splitlines() if "train_loss" in line} < expected
    assert run(flags, out, 8, **again) == straight
    weights = [
        load_file(folder / "checkpoint-8/adapter_model.safetensors")
        for folder in (tmp_path / "straight", out)
    ]
    assert all(tensor.equal(weights[1][name]) for name, tensor in weights[0].items())


def test_a_complete_run_says_which_flag_continues_it(
    tiny_run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = tiny_run | {"context_length": 128, "use_peft": True, "num_epochs": 1, "save_steps": 99}
    steps = run(flags, tmp_path, 0)
    assert "is complete" not in capsys.readouterr().out
    assert run(flags, tmp_path, 0, resume_from_checkpoint="auto") == steps
    said = f"this run is complete after step {len(steps)} of {len(steps)}: nothing is trained"
    assert f"{said}; more than --num_epochs 1 continues it" in capsys.readouterr().out
