"""A run that ``--max_train_step`` ended within an epoch is continued where it was."""

import json
import re
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
        "verbose": True,
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


def test_a_stream_continues_where_a_step_limit_ended_it(
    tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    """The run is the stream's one epoch, so no limit ends it: neither its rows nor its rate."""
    data = tmp_path / "rows.jsonl"
    rows = ({"text": f"row {number} " + "word " * (number % 7)} for number in range(31))
    data.write_text("\n".join(map(json.dumps, rows)))
    flags = tiny_run | {
        "dataset": "local_dataset",
        "local_dataset.data_path": str(data),
        "local_dataset.streaming": True,
        "batch_size_training": 2,
        "gradient_accumulation_steps": 3,
        "context_length": 64,
        "use_peft": True,
        "lora_dropout": 0.1,
        "save_steps": 9,
        "run_validation": False,
    }
    straight, out = run(flags, tmp_path / "straight", 5), tmp_path / "limited"
    run(flags, out, 2)
    limited = run(flags, out, 5, resume_from_checkpoint="auto")
    for step in (*straight, *limited):
        del step["epoch"]  # the part of this run's limit that is done
    assert limited == straight


def test_another_length_follows_its_own_schedule_from_the_next_step(
    tiny_run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = tiny_run | {
        "context_length": 128,
        "use_peft": True,
        "scheduler": "cosine",
        "warmup_steps": 2,
        "lr": 1e-2,
        "save_steps": 9,
        "run_validation": False,
    }
    longer = [step["lr"] for step in run(flags, tmp_path / "straight", 8, num_epochs=9)]
    shorter = [step["lr"] for step in run(flags, tmp_path, 4, num_epochs=9)]
    assert shorter[:2] == longer[:2] and shorter[3] < longer[3]
    assert "the schedule of this run" not in capsys.readouterr().out
    again = run(flags, tmp_path, 8, num_epochs=9, resume_from_checkpoint="auto")
    assert [step["lr"] for step in again] == shorter + longer[4:]
    said = capsys.readouterr().out
    assert f"(cosine) is over 8 steps, not 4: step 5 has learning rate {longer[4]:.2e}" in said


def test_losses_of_other_batches_are_neither_compared_nor_put_side_by_side(
    tiny_run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = tiny_run | {"context_length": 128, "use_peft": True, "save_steps": 9, "num_epochs": 9}
    run(flags, tmp_path, 2, max_eval_step=4)
    both = capsys.readouterr().out
    assert re.search(r"validation loss  \d\.\d{4} before, \d\.\d{4} after training", both)
    adapter = tmp_path / "adapter_model.safetensors"
    saved = adapter.read_bytes()
    state = tmp_path / "checkpoint-2/trainer.json"
    assert json.loads(state.read_text())["state"]["best_tokens"] > 0
    again = {"resume_from_checkpoint": "auto", "max_eval_step": 1}
    run(flags, tmp_path, 3, **again)
    other = capsys.readouterr().out
    assert re.search(r"validation loss  \d\.\d{4} after training \(before: of other batches", other)
    assert adapter.read_bytes() != saved  # there is no loss of these batches to beat
    run(flags, tmp_path, 3, **again)
    complete = capsys.readouterr().out
    assert "this run is complete after step 3 of 3" in complete
    assert "validation loss " not in complete
