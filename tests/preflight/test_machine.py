"""What the machine must have: a folder for the output, optional packages."""

import os
from pathlib import Path

import pytest

from llama_recipes_local import extras
from llama_recipes_local.preflight import machine
from llama_recipes_local.preflight.checks import CHECKS
from llama_recipes_local.run.resolution import resolve


def test_an_output_folder_may_exist_or_not(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "new", tmp_path / "new" / "below"):
        assert machine.check_output(resolve({"output_dir": str(folder)})) == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(machine.os, "access", lambda *question: asked.append(question))
    (problem,) = machine.check_output(resolve({"output_dir": str(tmp_path / "new" / "below")}))
    assert asked == [(tmp_path, os.W_OK | os.X_OK)]
    assert problem.what == f"--output_dir {tmp_path / 'new' / 'below'}"
    assert problem.why == f"{tmp_path} cannot be written by this user"


@pytest.mark.parametrize("kind", ["file", "long", "fine"])
def test_where_a_sharded_model_is_saved_is_known_to_work(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    flags = {"enable_fsdp": True, "model_name": "/" + ("n" * 250 if kind == "long" else "tiny")}
    flags["dist_checkpoint_root_folder"] = str(tmp_path / kind)
    problems = machine.check_sharded_output(resolve(flags))
    assert [kind == "fine", *problems] == [not problems, *problems]
    for problem in problems:
        assert problem.what.startswith("--dist_checkpoint_root_folder ")
        assert problem.why == f"{tmp_path}/file is a file" or "255 bytes at most" in problem.why
        assert "--dist_checkpoint_root_folder DIR" in problem.fix
    assert machine.check_sharded_output(resolve(flags | {"use_peft": True})) == []
    assert machine.check_sharded_output in CHECKS


def test_an_empty_output_folder() -> None:
    (problem,) = machine.check_output(resolve({"output_dir": ""}))
    assert problem.what == "--output_dir is empty"


@pytest.mark.parametrize(("cpus", "most"), [(2, 16), (8, 32)])
def test_workers_are_bounded_by_cpus(cpus: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: set(range(cpus)))
    assert machine.check_workers(resolve({"num_workers_dataloader": most})) == []
    (problem,) = machine.check_workers(resolve({"num_workers_dataloader": most + 1}))
    assert f"has {cpus} CPUs" in problem.why and f"at most {most} " in problem.why
    assert problem.fix == f"--num_workers_dataloader {cpus}"
    assert machine.check_workers in CHECKS


def test_workers_are_bounded_by_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.open_files, "most", lambda: 100)
    assert machine.check_workers(resolve({"num_workers_dataloader": 2})) == []
    (problem,) = machine.check_workers(resolve({"num_workers_dataloader": 4}))
    assert "may have 100 files open" in problem.why and "need 160" in problem.why
    monkeypatch.setattr(machine.open_files, "most", lambda: 8)
    assert machine.check_workers(resolve({"num_workers_dataloader": 0})) == []


@pytest.mark.parametrize("name", ["model", "model/", "below/../model"])
def test_the_models_own_folder_is_not_overwritten(name: str, tmp_path: Path) -> None:
    flags = {"model_name": str(tmp_path / "model"), "output_dir": f"{tmp_path}/{name}"}
    (problem,) = machine.check_output(resolve(flags))
    assert problem.why == "it is the model's own folder, whose files would be overwritten"
    assert machine.check_output(resolve(flags | {"output_dir": f"{tmp_path}/model/out"})) == []


@pytest.mark.parametrize(
    ("flags", "extra"),
    [
        ({"quantization": "4bit"}, "quantization"),
        ({"use_wandb": True}, "wandb"),
        ({"attn_implementation": "flash_attention_2"}, "flash"),
        ({"optimizer": "adamw_8bit"}, "quantization"),
        ({"report_to": "tensorboard"}, "tensorboard"),
        ({"report_to": "wandb"}, "wandb"),
        ({"report_to": "mlflow"}, "mlflow"),
    ],
)
def test_an_optional_package_is_required_only_if_it_is_used(
    flags: dict[str, object], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    assert machine.check_packages(resolve({})) == []
    (problem,) = machine.check_packages(resolve(flags))
    assert problem.fix.endswith(f"[{extra}]'")
    monkeypatch.setattr(extras, "find_spec", lambda name: True)
    assert machine.check_packages(resolve(flags)) == []


def test_swanlab_needs_its_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: name != "swanboard" or None)
    (problem,) = machine.check_packages(resolve({"report_to": "swanlab"}))
    assert "swanboard" in problem.why
    assert problem.fix.endswith("[swanlab]'")


@pytest.mark.parametrize("folder", ["/proc/out", "/proc/self/a/b", "/sys/out"])
def test_a_file_system_that_makes_no_folder(folder: str) -> None:
    (problem,) = machine.check_output(resolve({"output_dir": folder}))
    assert problem.what == f"--output_dir {Path(folder).resolve()}"
    assert "no folder can be made in /" in problem.why or "cannot be written" in problem.why


def test_looking_at_the_output_folder_leaves_nothing(tmp_path: Path) -> None:
    assert machine.check_output(resolve({"output_dir": str(tmp_path / "a/b")})) == []
    assert list(tmp_path.iterdir()) == []
