"""Every step is a line of JSON; the console gets one now and then."""

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.training import progress
from llama_recipes_local.training.progress import Progress, StepMetrics, clock

Samples = list[dict[str, list[int]]]
STEP = {"epoch": 0.5, "loss": 2.0, "lr": 1e-4, "grad_norm": None, "label_tokens": 3, "tokens": 8}


def test_every_step_is_a_line_with_every_field(
    run_training: Callable[..., Any], samples: Samples
) -> None:
    training = run_training(samples[:24], batch_size_training=1, gradient_clipping=True)
    lines = (training.output / "metrics.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == len(training.gradients) > 3
    for number, line in enumerate(map(json.loads, lines), 1):
        assert list(line) == [field.name for field in fields(StepMetrics)]
        assert line["step"] == number
        assert line["tokens"] >= line["label_tokens"] > 0
        assert all(line[name] > 0 for name in ("grad_norm", "tokens_per_second", "memory_gib"))
    seconds = [json.loads(line)["seconds"] for line in lines]
    assert seconds == sorted(seconds)


def test_tokens_are_all_positions_of_the_epoch(
    run_training: Callable[..., Any], samples: Samples
) -> None:
    training = run_training(samples[:24], batch_size_training=1, gradient_accumulation_steps=3)
    positions = sum(len(sample["input_ids"]) for sample in samples[:24])
    assert sum(line["tokens"] for line in training.steps) == positions


def test_console_gets_the_last_step_and_a_line_a_second_at_most(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    with Progress(tmp_path / "metrics.jsonl", total_steps=9) as reporter:
        for step in range(1, 10):
            now += 0.4
            reporter.step(step=step, **STEP)
    printed = re.findall(r"^step +(\d+)/9 ", capsys.readouterr().out, re.MULTILINE)
    assert printed == ["1", "4", "7", "9"]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 9


def test_console_line_tells_rate_and_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    with Progress(tmp_path / "metrics.jsonl", total_steps=61) as reporter:
        now += 50.0  # validation, which is no step's time
        reporter.pause()
        now += 2.0
        reporter.step(step=1, **STEP | {"tokens": 9000, "grad_norm": 1.5})
    (line,) = capsys.readouterr().out.splitlines()
    for part in ("step  1/61", "loss  2.0000", "grad_norm   1.500", "lr 1.00e-04", "4,500 tok/s"):
        assert part in line
    assert line.endswith("left 0:02:00")


def test_lines_are_there_as_soon_as_the_step_is_done(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Progress(path, total_steps=2) as reporter:
        reporter.step(step=1, **STEP)
        assert json.loads(path.read_text())["step"] == 1


def test_other_ranks_say_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with Progress(tmp_path / "metrics.jsonl", total_steps=1) as reporter:
        reporter.step(step=1, **STEP)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "written"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05")]
)
def test_clock(seconds: float, written: str) -> None:
    assert clock(seconds) == written
