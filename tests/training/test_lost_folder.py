"""A run whose output folder is moved or removed saves elsewhere, and says where."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import finetuning
from llama_recipes_local.checkpoints import layout, verifying, writing
from llama_recipes_local.custody import run_custody
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.model_folders.adapter_files import ADAPTER_WEIGHTS
from llama_recipes_local.run.record import CONFIGURATION_FILE
from llama_recipes_local.training.progress import Progress
from llama_recipes_local.training.trainer import Trainer
from llama_recipes_local.training.validating import Validator

pytestmark = pytest.mark.slow
STEPS = 4


@pytest.fixture
def flags(tiny_model: Path, grammar_data: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "model_name": str(tiny_model),
        "data_root": str(grammar_data),
        "data_cache": str(tmp_path / "cache"),
        "dataset": "grammar_dataset",
        "use_peft": True,
        "context_length": 64,
        "batch_size_training": 1,
        "num_workers_dataloader": 0,
        "max_train_step": STEPS,
        "max_eval_step": 1,
        "save_steps": 1,
    }


def at_step(step: int, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something to the folder right after a step."""
    add = Progress.add

    def and_act(self: Progress, pending: Any) -> None:
        add(self, pending)
        if pending.step == step:
            act()

    monkeypatch.setattr(Progress, "add", and_act)


def remove(folder: Path) -> None:
    """Remove a folder that a thread may be writing into."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def take_over(folder: Path) -> None:
    """Put another folder in the place of one that a thread may be writing into."""
    remove(folder)
    folder.mkdir()


def test_no_manifest_is_written_into_another_folder_of_its_name(
    flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs are hashed by a thread, which for large models ends long after the first steps."""
    output, taken, hashed = tmp_path / "out", threading.Event(), run_custody.hashed

    def hash_late(*arguments: Any) -> Any:
        assert taken.wait(60)
        return hashed(*arguments)

    def take() -> None:
        take_over(output)
        taken.set()
        join_custody()

    monkeypatch.setattr(run_custody, "hashed", hash_late)
    at_step(2, take, monkeypatch)
    with pytest.raises(SystemExit):
        finetuning.main(**flags, output_dir=str(output))
    assert not list(output.iterdir())


def test_no_manifest_is_written_after_the_run_has_ended(
    flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a notebook the thread outlives a run that failed, and the next may use the folder."""
    output, ended, hashed = tmp_path / "out", threading.Event(), run_custody.hashed

    def hash_late(*arguments: Any) -> Any:
        assert ended.wait(60)
        return hashed(*arguments)

    def fail() -> None:
        raise TrainingError("stopped")

    monkeypatch.setattr(run_custody, "hashed", hash_late)
    at_step(2, fail, monkeypatch)
    with pytest.raises(SystemExit):
        finetuning.main(**flags, output_dir=str(output))
    ended.set()
    join_custody()
    assert (output / CONFIGURATION_FILE).is_file()
    assert not list(output.glob("*custody*"))


def join_custody() -> None:
    """Wait for the threads that hash inputs."""
    for thread in threading.enumerate():
        if thread.name == run_custody.THREAD_NAME:
            thread.join()


def test_nothing_is_published_into_another_folder_of_its_name(
    flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that writes may begin a draft in the new folder, before the loss is noticed."""
    output, taken, write_part = tmp_path / "out", threading.Event(), writing._write_part

    def take() -> None:
        take_over(output)
        taken.set()

    def write_late(job: Any) -> None:
        if job.content.step == 1:
            assert taken.wait(60)
            writing.begin_draft(job.target)
        write_part(job)

    monkeypatch.setattr(writing, "_write_part", write_late)
    at_step(2, take, monkeypatch)
    with pytest.raises(SystemExit):
        finetuning.main(**flags, async_save=True, output_dir=str(output))
    assert not list(output.iterdir())
    verifying.verify(tmp_path / "out-2" / "checkpoint-2")


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("how", ["removed", "moved", "taken"])
def test_a_lost_folder_stops_the_run_with_a_checkpoint_elsewhere(
    how: str,
    asynchronous: bool,
    flags: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"

    def lose() -> None:
        if how == "moved":
            output.rename(tmp_path / "moved")
        else:
            {"removed": remove, "taken": take_over}[how](output)

    refuge = {"removed": output, "moved": tmp_path / "moved", "taken": tmp_path / "out-2"}[how]
    flags["async_save"] = asynchronous
    with monkeypatch.context() as patch:
        at_step(2, lose, patch)
        with pytest.raises(SystemExit) as stopped:
            finetuning.main(**flags, output_dir=str(output))
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert f"after step 2 of {STEPS}, saved in {refuge}/checkpoint-2" in said
    assert f"--output_dir {refuge} --resume_from_checkpoint auto" in said
    verifying.verify(refuge / "checkpoint-2")
    assert how != "taken" or not list(output.iterdir())
    finetuning.main(**flags, output_dir=str(refuge), resume_from_checkpoint="auto")
    finetuning.main(**flags, output_dir=str(tmp_path / "straight"))
    resumed, straight = refuge / ADAPTER_WEIGHTS, tmp_path / "straight" / ADAPTER_WEIGHTS
    assert resumed.read_bytes() == straight.read_bytes()
    assert layout.checkpoints_in(refuge)[0].name == f"checkpoint-{STEPS}"


@pytest.mark.parametrize("save_steps", [0, 1])
@pytest.mark.parametrize("when", ["validating", "at the end"])
@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_folder_lost_after_the_last_step_is_noticed(
    how: str,
    when: str,
    save_steps: int,
    flags: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, moved = tmp_path / "out", tmp_path / "moved"
    flags["save_steps"] = save_steps
    owner = {"validating": Validator, "at the end": Trainer}[when]
    name = {"validating": "evaluate", "at the end": "_end_epoch"}[when]
    original = getattr(owner, name)
    lost: list[str] = []

    def and_lose(self: Any) -> Any:
        found = original(self)
        if self.parts.state.step == STEPS and not lost:
            lost.append(how)
            output.rename(moved)
            if how == "removed":
                shutil.rmtree(moved)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, and_lose)
        with pytest.raises(SystemExit) as stopped:
            finetuning.main(**flags, output_dir=str(output))
    assert stopped.value.code == 1
    refuge = output if how == "removed" else moved
    assert f"--output_dir {refuge} --resume_from_checkpoint auto" in capsys.readouterr().err
    finetuning.main(**flags, output_dir=str(refuge), resume_from_checkpoint="auto")
    assert (refuge / ADAPTER_WEIGHTS).is_file()
    record = json.loads((refuge / CONFIGURATION_FILE).read_text())
    assert record["finished"]


def test_records_that_were_removed_are_written_again(
    flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    flags["save_steps"] = 0
    names = [CONFIGURATION_FILE, "prompt_template.json", "data_audit.json", "metrics.jsonl"]
    at_step(2, lambda: [(output / name).unlink() for name in names], monkeypatch)
    finetuning.main(**flags, output_dir=str(output))
    assert all((output / name).is_file() for name in names)
    lines = (output / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, STEPS + 1))


def test_what_auto_skips_as_corrupt_is_set_aside(flags: dict[str, Any], tmp_path: Path) -> None:
    """It would be kept in place of what the resumed run saves."""
    output = tmp_path / "out"
    finetuning.main(**flags, output_dir=str(output))
    for step in (3, 4):
        with (output / f"checkpoint-{step}" / layout.TRAINER).open("a") as file:
            file.write(" ")
    flags |= {"max_train_step": 3, "save_total_limit": 1, "resume_from_checkpoint": "auto"}
    finetuning.main(**flags, output_dir=str(output))
    verifying.verify(output / "checkpoint-3")
    kept = {path.name for path in output.glob("*checkpoint-*")}
    assert kept >= {"checkpoint-3", "skipped-checkpoint-3", "skipped-checkpoint-4"}
    assert "checkpoint-4" not in kept
