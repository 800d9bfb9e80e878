"""Problems of checkpoints that are found before anything is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.checkpoints import rng_state
from llama_recipes_local.checkpoints.files import write_file
from llama_recipes_local.checkpoints.layout import MANIFEST, RANDOM, TRAINER, Manifest, folder_of
from llama_recipes_local.checkpoints.plausibility import LOSSES, SECONDS
from llama_recipes_local.preflight.checks import CHECKPOINTS, check_values, find_problems
from llama_recipes_local.run.resolution import resolve


def problems(**flags: Any) -> list[str]:
    checks = (check_values, *CHECKPOINTS)
    return [str(problem) for problem in find_problems(resolve(flags), checks)]


def progress(step: int) -> dict[str, Any]:
    """Return what the trainer of a run that never validated would save."""
    empty: dict[str, Any] = {name: [] for name in (*LOSSES, *SECONDS, "epoch_steps")}
    unknown = dict.fromkeys(("initial_eval_loss", "tflops"))
    took = {"file": "", "seconds_of_epoch": 1.0, "train_step_loss": [1.0] * step}
    return {
        "ranks": 1,
        "seconds": 1.0,
        "state": {"step": step, "epoch": 0, "validated": -1, "best_loss": None},
        "history": empty | unknown | took,
        "feed": {"taken": 0, "ended": False, "position": None},
        "optimizer": {"numbers": {}, "groups": [{"lr": 1e-3, "params": []}]},
        "stepper": {"overflows": 0, "scaler": {}},
        "schedule": {},
    }


def checkpoint(output: Path, step: int) -> Path:
    """Make a complete checkpoint of what a run says of itself, without weights."""
    folder = folder_of(output, step)
    (folder / RANDOM).mkdir(parents=True)
    said = {TRAINER: progress(step), f"{RANDOM}/rank-0.json": rng_state.state_dict()}
    files = {
        name: write_file(folder / name, [json.dumps(content).encode()])
        for name, content in said.items()
    }
    manifest = Manifest(step, ranks=1, validation_loss=None, files=files)
    (folder / MANIFEST).write_text(manifest.text())
    return folder


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"save_steps": -1}, "--save_steps is -1"),
        ({"save_steps": 1, "save_total_limit": -1}, "--save_total_limit is -1"),
        ({"save_total_limit": 2}, "--save_total_limit without --save_steps"),
        ({"async_save": True}, "--async_save without --save_steps"),
        ({"resume_despite": "data"}, "--resume_despite without --resume_from_checkpoint"),
        (
            {"resume_from_checkpoint": "auto", "resume_despite": "date"},
            "did you mean --resume_despite data?",
        ),
        ({"resume_from_checkpoint": "nowhere"}, "there is no folder"),
    ],
)
def test_invalid_settings_are_reported(tmp_path: Path, flags: dict[str, Any], said: str) -> None:
    (problem,) = problems(output_dir=str(tmp_path), **flags)
    assert said in problem


def test_auto_and_from_scratch_have_no_problem(tmp_path: Path) -> None:
    assert not problems(output_dir=str(tmp_path), save_steps=1)
    assert not problems(output_dir=str(tmp_path), resume_from_checkpoint="auto")
    folder = checkpoint(tmp_path, 5)
    assert not problems(output_dir=str(tmp_path), resume_from_checkpoint="auto")
    assert not problems(output_dir=str(tmp_path), resume_from_checkpoint=str(folder))
    assert not problems(output_dir=str(tmp_path / "new"), resume_from_checkpoint=str(folder))


def test_a_new_run_does_not_mix_with_another_runs_checkpoints(tmp_path: Path) -> None:
    checkpoint(tmp_path / "old", 5)
    (problem,) = problems(output_dir=str(tmp_path / "old"))
    assert "checkpoint-5 of another run" in problem
    assert "--resume_from_checkpoint auto" in problem
    other = checkpoint(tmp_path / "other", 7)
    (problem,) = problems(output_dir=str(tmp_path / "old"), resume_from_checkpoint=str(other))
    assert "checkpoint-5 of another run" in problem


def test_an_older_checkpoint_is_not_resumed_from_next_to_a_newer(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 5)
    checkpoint(tmp_path, 10)
    (problem,) = problems(output_dir=str(tmp_path), resume_from_checkpoint=str(folder))
    assert "with checkpoint-10 in --output_dir" in problem


def test_a_missing_file_is_named_with_the_last_complete_checkpoint(tmp_path: Path) -> None:
    complete, folder = checkpoint(tmp_path, 5), checkpoint(tmp_path, 10)
    (folder / "trainer.json").unlink()
    (problem,) = problems(output_dir=str(tmp_path), resume_from_checkpoint=str(folder))
    assert f"{folder / 'trainer.json'} is missing" in problem
    assert f"--resume_from_checkpoint {complete}" in problem
