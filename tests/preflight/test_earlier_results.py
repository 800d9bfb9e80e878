"""An earlier run's result is refused, or removed where that is asked for; never overwritten."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import finetuning
from llama_recipes_local.model_checkpointing.adapter_card import CARD
from llama_recipes_local.model_folders.adapter_files import ADAPTER_WEIGHTS
from llama_recipes_local.preflight.checks import CHECKPOINTS, find_problems
from llama_recipes_local.preflight.earlier_results import (
    FILES,
    check_earlier_result,
    check_names_are_free,
    check_output_has_no_weights,
)
from llama_recipes_local.run.record import CONFIGURATION_FILE, FINISHED
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.storage.folder_lock import locked


def problems(output: Path, **flags: Any) -> list[str]:
    run = resolve({"output_dir": str(output), **flags})
    return [str(problem) for problem in check_earlier_result(run)]


def record(output: Path, finished: str = "") -> None:
    content = {"train_config": {"model_name": "/m/tiny", "dataset": "rows_dataset", "lr": 0.5}}
    output.mkdir(exist_ok=True, parents=True)
    (output / CONFIGURATION_FILE).write_text(json.dumps(content | {FINISHED: finished}))


@pytest.mark.parametrize(
    "flags",
    [{}, {"overwrite_output_dir": True}, {"resume_from_checkpoint": "auto"}],
    ids=lambda flags: next(iter(flags), "new"),
)
def test_a_folder_that_is_written_to_is_no_earlier_result(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    record(tmp_path)
    (tmp_path / ADAPTER_WEIGHTS).touch()
    (tmp_path / "checkpoint-5").mkdir()
    run = resolve({"output_dir": str(tmp_path), **flags})
    with locked(tmp_path):
        (problem,) = find_problems(run, CHECKPOINTS)
        assert problem.what == f"another run writes into --output_dir {tmp_path}"
        assert "--overwrite_output_dir" not in problem.fix
        assert [problem] == check_output_has_no_weights(tmp_path)
    assert problem not in find_problems(run, CHECKPOINTS)
    with locked(tmp_path):  # a check leaves no lock
        pass


@pytest.mark.parametrize("name", [ADAPTER_WEIGHTS, "model.safetensors"])
def test_saved_weights_are_refused_with_what_they_are(name: str, tmp_path: Path) -> None:
    record(tmp_path)
    (tmp_path / name).touch()
    (problem,) = problems(tmp_path)
    assert f"--output_dir {tmp_path} holds " in problem
    assert re.search(r"of a run of 20\d\d-\d\d-\d\d \d\d:\d\d", problem)
    assert "overwrite that result: tiny on rows_dataset, --lr 0.5" in problem
    assert "--output_dir DIR" in problem and "--overwrite_output_dir" in problem
    assert not problems(tmp_path, overwrite_output_dir=True)


def test_a_finished_run_without_weights_is_refused(tmp_path: Path) -> None:
    record(tmp_path, "2026-11-27 21:03:05")
    (problem,) = problems(tmp_path)
    assert "of a run of 2026-11-27 21:03:05" in problem
    (problem,) = problems(tmp_path, resume_from_checkpoint="auto")
    assert "of a run of 2026-11-27 21:03:05" in problem


def test_what_was_not_finished_is_begun_again(tmp_path: Path) -> None:
    assert not problems(tmp_path / "new")
    record(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    assert not problems(tmp_path)
    (tmp_path / ADAPTER_WEIGHTS).touch()  # saved by the first validation
    assert not problems(tmp_path, resume_from_checkpoint="auto")


@pytest.mark.parametrize("name", [*FILES, CARD])
def test_a_folder_or_a_link_of_a_files_name_is_refused(name: str, tmp_path: Path) -> None:
    flags = {"output_dir": str(tmp_path), "use_peft": True}
    run = resolve(flags)
    assert not check_names_are_free(run)
    (tmp_path / name).mkdir()
    (problem,) = check_names_are_free(run)
    assert problem.what == f"{tmp_path / name} is a folder"
    (tmp_path / name).rmdir()
    (tmp_path / name).symlink_to(tmp_path / "private")
    (problem,) = check_names_are_free(run)
    assert problem.what == f"{tmp_path / name} is a link to {tmp_path}/private"
    overwriting = resolve({**flags, "overwrite_output_dir": True})
    assert len(check_names_are_free(overwriting)) == (name == CARD)
    (tmp_path / name).unlink()
    assert check_names_are_free in CHECKPOINTS


def test_a_run_is_continued_from_its_own_checkpoint_alone(tmp_path: Path) -> None:
    record(tmp_path, "2026-11-27 21:03:05")
    (tmp_path / ADAPTER_WEIGHTS).touch()
    (tmp_path / "checkpoint-3").mkdir()
    assert not problems(tmp_path, resume_from_checkpoint="auto")
    assert not problems(tmp_path, resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    record(tmp_path / "other", "2026-11-27 21:03:05")
    named = {"resume_from_checkpoint": str(tmp_path / "checkpoint-3")}
    assert problems(tmp_path / "other", **named)


def test_a_sharded_model_is_refused_too(tmp_path: Path) -> None:
    flags = {"enable_fsdp": True, "model_name": "tiny", "dist_checkpoint_root_folder": tmp_path}
    folder = tmp_path / "fine-tuned-tiny"
    folder.mkdir()
    assert not problems(tmp_path / "out", **flags)
    (folder / "shard-00001-model-00001-of-00001.safetensors").touch()
    (problem,) = problems(tmp_path / "out", **flags)
    assert f"--dist_checkpoint_root_folder {folder} holds a model's weights" in problem
    assert not problems(tmp_path / "out", use_peft=True, **flags)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"resume_from_checkpoint": "auto"}, "--resume_from_checkpoint auto"),
        ({"from_peft_checkpoint": "{}"}, "--from_peft_checkpoint"),
        ({"from_peft_checkpoint": "{}/checkpoint-2"}, "--from_peft_checkpoint"),
        ({"tokenizer_name": "{}"}, "--tokenizer_name"),
    ],
)
def test_what_the_run_reads_is_not_removed(
    flags: dict[str, str], said: str, tmp_path: Path
) -> None:
    record(tmp_path)
    flags = {name: value.format(tmp_path) for name, value in flags.items()}
    (problem,) = problems(tmp_path, overwrite_output_dir=True, **flags)
    assert f"--overwrite_output_dir with {said}" in problem


def test_a_model_that_no_run_wrote_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    (problem,) = problems(tmp_path, overwrite_output_dir=True)
    assert "was not written by a run" in problem


def test_sft_refuses_weights_too(tmp_path: Path) -> None:
    assert not check_output_has_no_weights(tmp_path)
    (tmp_path / ADAPTER_WEIGHTS).touch()
    (problem,) = check_output_has_no_weights(tmp_path)
    assert f"{tmp_path} holds {ADAPTER_WEIGHTS}" in problem.what


def test_a_result_is_kept_until_it_is_given_up(
    tiny_model: Path, grammar_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags: dict[str, Any] = {
        "model_name": str(tiny_model),
        "data_root": str(grammar_data),
        "data_cache": str(tmp_path / "cache"),
        "output_dir": str(tmp_path / "out"),
        "dataset": "grammar_dataset",
        "use_peft": True,
        "context_length": 128,
        "num_workers_dataloader": 0,
        "max_train_step": 1,
        "max_eval_step": 1,
        "save_steps": 1,
    }
    finetuning.main(**flags)
    weights = tmp_path / "out" / ADAPTER_WEIGHTS
    first = weights.read_bytes()
    mine = tmp_path / "out" / "notes.json"
    mine.write_text("{}")
    again = flags | {"save_steps": 0, "lr": 0.1}
    with pytest.raises(SystemExit) as stopped:
        finetuning.main(**again)
    assert stopped.value.code == 2
    assert weights.read_bytes() == first
    capsys.readouterr()
    finetuning.main(**again, overwrite_output_dir=True)
    assert "--> removed from" in capsys.readouterr().out
    assert weights.read_bytes() != first
    assert mine.exists() and not list(weights.parent.glob("checkpoint-*"))
    assert json.loads((tmp_path / "out" / CONFIGURATION_FILE).read_text())[FINISHED]
