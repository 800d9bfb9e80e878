"""``finetune`` from Python: the command's checks, numbers and messages, and no SystemExit."""

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from llama_recipes_local import (
    InterruptedRun,
    Result,
    TrainingError,
    UsageError,
    finetune,
    finetuning,
    finetuning_run,
)
from llama_recipes_local.run import active_run
from llama_recipes_local.training import loop
from llama_recipes_local.training.signals import StopRequested
from llama_recipes_local.training.stepping import Stepper

PROJECT = Path(__file__).resolve().parents[2]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# figures of time and memory
CHANGING = {"tokens_per_second", "tflops", "memory_gib", "data_seconds", "seconds"}


def constant(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in CHANGING}


def process_state() -> tuple[object, ...]:
    """Return what a run could leave changed; ``tests/training/test_two_runs.py`` has more."""
    return [signal.getsignal(each) for each in SIGNALS], dict(os.environ), sys.stdout, sys.stderr


def remember_models(monkeypatch: pytest.MonkeyPatch) -> list["weakref.ref[Any]"]:
    """Return where the models that runs train can be looked up, as long as they live."""
    trained: list[weakref.ref[Any]] = []
    train = loop.Trainer.train

    def remembered(trainer: loop.Trainer) -> Any:
        trained.append(weakref.ref(trainer.parts.model))
        return train(trainer)

    monkeypatch.setattr(loop.Trainer, "train", remembered)
    return trained


@pytest.mark.command
def test_its_numbers_are_the_commands_to_the_bit(
    result: Result, short_run: dict[str, Any], environment: dict[str, str], tmp_path: Path
) -> None:
    flags = [f"--{name}={value}" for name, value in short_run.items()]
    command = [sys.executable, "finetuning.py", *flags, f"--output_dir={tmp_path}"]
    subprocess.run(
        command,
        cwd=PROJECT,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    for name, rows in (("metrics", result.metrics), ("evaluations", result.evaluations)):
        lines = (tmp_path / f"{name}.jsonl").read_text("utf-8").splitlines()
        assert len(lines) >= 2
        assert [constant(json.loads(line)) for line in lines] == list(map(constant, rows))
    weights = "adapter_model.safetensors"
    assert (tmp_path / weights).read_bytes() == (result.output_dir / weights).read_bytes()


def test_every_problem_is_in_one_exception_with_the_commands_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong: dict[str, Any] = {"modle_name": tmp_path, "lr": "fast", "use_peft": True, "r": 1.5}
    with pytest.raises(UsageError) as raised:
        finetune(**wrong)
    assert [problem.what for problem in raised.value.problems][:2] == [
        "unknown flag --modle_name",
        "--lr cannot be 'fast'",
    ]
    assert all(problem.why and problem.fix for problem in raised.value.problems)
    assert capsys.readouterr().err == ""  # the exception says it
    with pytest.raises(SystemExit) as ended:
        finetuning.main(**wrong | {"modle_name": str(tmp_path)})
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"{raised.value}\n"
    assert raised.value._render_traceback_() == str(raised.value).splitlines()


def test_a_path_is_checked_as_its_text() -> None:
    found = []
    for path in ("no\0such", Path("no\0such")):
        with pytest.raises(UsageError) as raised:
            finetune(model_name=path, dataset=path)
        found.append(str(raised.value))
    assert found[0] == found[1]
    assert "--model_name" in found[0]


def test_a_section_is_a_configurations_own() -> None:
    with pytest.raises(UsageError) as raised:
        finetune(model_name="m", grammar_dataset={"train_splt": "a.csv"})
    assert "unknown flag --grammar_dataset.train_splt" in str(raised.value)
    assert "--grammar_dataset.train_split" in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (TrainingError("it stopped"), TrainingError, "it stopped"),
        (OSError(28, "No space left on device"), TrainingError, "bytes are free in"),
        (torch.OutOfMemoryError("CUDA out of memory"), TrainingError, "memory"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
        (ZeroDivisionError("a bug"), ZeroDivisionError, "a bug"),
    ],
)
def test_what_ends_a_run_is_an_exception(
    error: BaseException,
    expected: type[BaseException],
    text: str,
    short_run: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(run: object) -> None:
        raise error

    monkeypatch.setattr(finetuning_run, "start", fail)
    with pytest.raises(expected) as raised:
        finetune(**short_run, output_dir=tmp_path / "run")
    assert text in str(raised.value)
    assert active_run() is None


@pytest.mark.slow
def test_a_run_leaves_nothing_in_the_process(
    short_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = remember_models(monkeypatch)
    before = process_state()
    found = [finetune(**short_run, output_dir=tmp_path / str(number)) for number in range(2)]
    losses = [[row["loss"] for row in each.metrics] for each in found]
    assert losses[0] == losses[1]
    assert process_state() == before
    assert not torch.distributed.is_initialized()
    assert [reference() for reference in trained] == [None, None]


@pytest.mark.slow
@pytest.mark.parametrize("error", [StopRequested, torch.OutOfMemoryError])
def test_an_error_that_is_kept_keeps_no_model(
    error: type[Exception],
    short_run: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = remember_models(monkeypatch)

    def stop(*given: Any) -> None:
        raise error("stopped")

    monkeypatch.setattr(loop.Trainer, "_take_step", stop)
    kept: list[BaseException] = []
    try:
        finetune(**short_run, output_dir=tmp_path / "run")
    except TrainingError as raised:
        kept.append(raised)  # as a notebook does
    assert isinstance(kept[0], InterruptedRun) == (error is StopRequested)
    assert [reference() for reference in trained] == [None]


@pytest.mark.slow
@pytest.mark.parametrize(("interrupts", "expected"), [(1, InterruptedRun), (2, KeyboardInterrupt)])
def test_an_interrupt_saves_and_a_second_one_stops(
    interrupts: int,
    expected: type[BaseException],
    short_run: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = Stepper.step

    def interrupted(stepper: Stepper, *given: Any) -> Any:
        for _ in range(interrupts):
            signal.raise_signal(signal.SIGINT)
        return step(stepper, *given)

    monkeypatch.setattr(Stepper, "step", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(expected) as raised:
        finetune(**short_run, output_dir=tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) == handler
    saved = tmp_path / "run" / "checkpoint-1"
    assert saved.is_dir() == (expected is InterruptedRun)
    if saved.is_dir():
        assert f"stopped after step 1 of 3, saved in {saved}" in str(raised.value)
        assert str(raised.value) in (tmp_path / "run" / "run.log").read_text("utf-8")
        monkeypatch.setattr(Stepper, "step", step)
        flags = short_run | {"resume_from_checkpoint": "auto"}
        assert finetune(**flags, output_dir=tmp_path / "run").steps == 3


@pytest.mark.slow
def test_a_thread_can_call_it_and_is_told_about_signals(
    short_run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[Result] = []

    def call() -> None:
        found.append(finetune(**short_run, output_dir=tmp_path / "run"))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert found[0].steps == 3
    assert capsys.readouterr().out.count("not in the main thread: signals") == 1


def test_a_second_run_at_the_same_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def nested(*given: object, **named: object) -> None:
        finetune(model_name="other")

    monkeypatch.setattr(finetuning_run, "prepare", nested)
    with pytest.raises(UsageError, match="a run of this process has not ended"):
        finetune(model_name="m")
    with pytest.raises(UsageError, match="a run of this process has not ended"):
        finetune(model_name="m")  # the lock of the first was released
