"""Every step is a line of JSON; the newest is shown at most once a second."""

import json
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from llama_recipes_local import launch
from llama_recipes_local.training import display, progress
from llama_recipes_local.training.flops import TrainingFlops
from llama_recipes_local.training.loggers import JsonLines
from llama_recipes_local.training.progress import PendingStep, Progress, StepMetrics
from llama_recipes_local.training.step_sync import StepSync
from llama_recipes_local.training.stepping import Figures

Samples = list[dict[str, list[int]]]


def a_step(step: int, tokens: int = 8, norm: float = 1.5, stop: bool = False) -> PendingStep:
    """A step that was sent to the device, on one rank."""
    sync = StepSync(3, tokens, real_tokens=tokens, squared_lengths=tokens**2, report=False)
    values = torch.tensor([2.0, norm, float(stop), float(stop)])
    return PendingStep(step, 0.5, 1e-4, sync, Figures(values, values[:1]), 0.25, 0, [])


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The current time, in seconds."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_every_step_is_a_line_with_every_field(
    run_training: Callable[..., Any], samples: Samples
) -> None:
    training = run_training(samples[:24], batch_size_training=1, gradient_clipping=True)
    lines = (training.output / "metrics.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == len(training.gradients) > 3
    for number, line in enumerate(map(json.loads, lines), 1):
        assert list(line) == [each.name for each in fields(StepMetrics) if each.name != "by_source"]
        assert line["step"] == number
        assert line["tokens"] >= line["label_tokens"] > 0
        assert all(
            line[name] > 0 for name in ("grad_norm", "tokens_per_second", "tflops", "memory_gib")
        )
    seconds = [json.loads(line)["seconds"] for line in lines]
    assert seconds == sorted(seconds)


def test_tokens_are_all_positions_of_the_epoch(
    run_training: Callable[..., Any], samples: Samples
) -> None:
    training = run_training(samples[:24], batch_size_training=1, gradient_accumulation_steps=3)
    positions = sum(len(sample["input_ids"]) for sample in samples[:24])
    assert sum(line["tokens"] for line in training.steps) == positions


def test_steps_are_shown_at_most_once_a_second_and_the_last_one_in_any_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: list[float]
) -> None:
    shown: list[int] = []
    monkeypatch.setattr(display.Display, "step", lambda self, step: shown.append(step.step))
    with Progress(9, [JsonLines(tmp_path)]) as reporter:
        for step in range(1, 10):
            now[0] += 0.4
            due = reporter.due(step)
            reporter.add(a_step(step))
            if due:
                reporter.fetch(show=True)
    assert shown == [1, 4, 7, 9]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 9


def test_what_is_shown_has_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], now: list[float]
) -> None:
    flops = TrainingFlops(per_token=10**9, per_squared_length=10**6)
    with Progress(61, flops=flops, peak_flops=1e15, epochs=2) as reporter:
        now[0] += 50.0  # validation, which is not part of a step
        reporter.pause()
        now[0] += 2.0
        reporter.add(a_step(1, tokens=9000))
        (fetched,) = reporter.fetch(show=True)
    first, line = capsys.readouterr().out.splitlines()
    assert first == "--> first step: 2.0 s"
    memory = f"{fetched.metrics.memory_gib:4.1f} GiB"
    expected = ("step  1/61", "loss 2.0000", "grad_norm 1.500", " 4,500 tok/s", memory)
    assert line == "  ".join([*expected, "left 2:00"])
    # (9000 * 10**9 + 9000**2 * 10**6) / 2 seconds
    assert fetched.metrics.tflops == 45.0
    assert fetched.metrics.mfu == 0.045


def test_tflops_are_those_of_one_of_the_ranks(
    now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "world_size", lambda: 4)
    with Progress(9, flops=TrainingFlops(10**9, 0), peak_flops=1e15) as reporter:
        reporter.add(a_step(1, tokens=8000))  # of all ranks
        now[0] += 2.0
        (fetched,) = reporter.fetch()
    assert (fetched.metrics.tflops, fetched.metrics.mfu) == (1.0, 0.001)
    assert fetched.metrics.tokens_per_second == 4000.0


def test_steps_that_are_fetched_together_share_the_time_by_tokens(now: list[float]) -> None:
    with Progress(9) as reporter:
        for step, tokens in ((1, 10), (2, 30), (3, 40)):
            reporter.add(a_step(step, tokens))
        now[0] += 8.0
        metrics = [fetched.metrics for fetched in reporter.fetch()]
    assert [each.seconds for each in metrics] == [1.0, 4.0, 8.0]
    assert [each.tokens_per_second for each in metrics] == [10.0] * 3
    assert [each.data_seconds for each in metrics] == [0.25] * 3


def test_steps_wait_on_the_device_until_they_are_fetched(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Progress(3, [JsonLines(tmp_path)]) as reporter:
        reporter.add(a_step(1))
        reporter.add(a_step(2))
        assert path.read_text() == ""
        reporter.fetch()
        assert len(path.read_text().splitlines()) == 2


def test_an_interrupted_run_writes_every_step_it_took(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Progress(9, [JsonLines(tmp_path)]) as reporter:
        reporter.add(a_step(1))
        reporter.add(a_step(2))
        raise KeyboardInterrupt
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_a_step_that_stops_training_is_not_logged_nor_any_after_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(9, [JsonLines(tmp_path)]) as reporter:
        for step in (1, 2, 3):
            reporter.add(a_step(step, stop=step > 1))
        fetched = reporter.fetch(show=True)
    assert [(each.pending.step, each.stop, each.bad_ranks) for each in fetched] == [
        (1, False, []),
        (2, True, [0]),
    ]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    assert "loss" not in capsys.readouterr().out


def test_a_norm_that_overflowed_is_valid_json(tmp_path: Path) -> None:
    with Progress(9, [JsonLines(tmp_path)]) as reporter:
        reporter.add(a_step(1, norm=math.inf))
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["grad_norm"] is None


def test_other_ranks_print_nothing_and_request_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "rank", lambda: 1)
    with Progress(1) as reporter:
        assert not reporter.due(1)
        reporter.add(a_step(1))
        assert len(reporter.fetch(show=True)) == 1
    assert capsys.readouterr().out == ""
