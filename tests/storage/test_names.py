"""A name that is not UTF-8 is refused by the command that was given it, before anything is done."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import cli, finetuning
from llama_recipes_local.preflight import machine
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.storage.names import (
    check_name,
    check_path,
    check_possible,
    free_path,
    hidden_beside,
)

GBK = os.fsdecode("模型".encode("gbk"))


def test_a_name_in_utf_8_is_accepted() -> None:
    assert check_name("模型") == []


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["finetune", "--output_dir", GBK], "--output_dir"),
        (["finetune", "--grammar_dataset.train_split", GBK], "--grammar_dataset.train_split"),
        (["inspect", "--data_root", GBK], "--data_root"),
        (["inspect", "--png", f"{GBK}.png"], "--png"),
        (["evaluate", "--out", GBK], "--out"),
        (["prepare", "grammar", "--out", GBK], "--out"),
        (["prepare", "stand-in", "--out", GBK], "--out"),
        (["convert", "x", "--out", GBK], "--out"),
    ],
)
def test_each_command_refuses_it(
    words: list[str],
    flag: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(words)
    except SystemExit as error:  # as finetuning.py ends
        code = error.code
    said = capsys.readouterr().err
    assert code == 2 and "bytes that are not UTF-8" in said
    assert f" {flag} " in said and "\\udcd0" in said
    assert not list(tmp_path.iterdir())


def test_a_model_in_such_a_folder_is_refused(
    tiny_model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / GBK).symlink_to(tmp_path / f"{GBK}.real")
    (tmp_path / f"{GBK}.real").mkdir()
    for path in tiny_model.iterdir():
        (tmp_path / GBK / path.name).symlink_to(path)
    assert cli.main(["generate", "--model_name", str(tmp_path / GBK), "--prompt", "x"]) == 2
    said = capsys.readouterr().err
    assert "bytes that are not UTF-8" in said and "not a whole" not in said


def test_an_output_folder_below_such_a_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / GBK).mkdir()
    monkeypatch.chdir(tmp_path / GBK)
    (problem,) = machine.check_output(resolve({"output_dir": "out"}))
    assert "bytes that are not UTF-8" in problem.why


def test_a_path_may_be_as_long_as_the_system_takes() -> None:
    whole = ("/" + "a" * 99) * 40 + "/" + "a" * 94
    for path in ("/" + "a" * 255, "/" + "a" * 256, whole, whole + "a"):
        with pytest.raises(OSError) as caught:
            os.lstat(path)
        too_long = caught.value.errno == errno.ENAMETOOLONG
        assert bool(check_possible(path, "--output_dir")) == too_long


def test_a_hidden_name_is_a_hash_only_where_it_would_be_too_long() -> None:
    longest, longer = (hidden_beside(Path("a" * length), ".old").name for length in (250, 251))
    assert longest == f".{'a' * 250}.old" and len(longest) == 255
    assert len(longer) == 1 + 64 + 4


def test_a_free_path_is_numbered_before_its_ending(tmp_path: Path) -> None:
    folder, file = tmp_path / "run.v2", tmp_path / "result.json"
    assert free_path(folder) == folder
    folder.mkdir()
    (tmp_path / "run.v2-2").symlink_to(tmp_path / "nowhere")
    assert free_path(folder) == tmp_path / "run.v2-3"
    file.touch()
    assert free_path(file, ".json") == tmp_path / "result-2.json"


@pytest.fixture
def circle(tmp_path: Path) -> Path:
    (tmp_path / "there").symlink_to("back")
    (tmp_path / "back").symlink_to("there")
    return tmp_path / "back"


def test_a_link_in_a_circle_is_refused(circle: Path) -> None:
    for path in (circle, circle / "below"):
        (problem,) = check_path(path, "--model_name")
        assert problem.what == f"--model_name {path}" and "leads back to itself" in problem.why
    (circle.parent / "whole").symlink_to(circle.parent)
    assert check_path(circle.parent / "whole/whole/file", "--model_name") == []


def test_what_this_user_may_not_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's answers are given here, because root may read everything."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "file").touch()
    assert check_path(tmp_path / "closed", "--model_name") == []
    monkeypatch.setattr(os, "access", lambda path, mode: "closed" not in str(path))
    (problem,) = check_path(tmp_path / "closed", "--model_name")
    assert "permission denied" in problem.why and "have its owner allow that" in problem.fix
    assert check_path(tmp_path / "file", "--model_name") == []

    def denied(path: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "stat", denied)
    (problem,) = check_possible("closed/x", "--output_dir")
    monkeypatch.undo()
    assert "permission denied" in problem.why


@pytest.mark.parametrize("flag", ["model_name", "output_dir", "data_root", "dataset"])
def test_a_flag_that_names_such_a_link(
    flag: str, circle: Path, tiny_run: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        finetuning.main(**tiny_run | {flag: str(circle)})
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "leads back to itself" in said


def test_an_output_folder_that_links_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    run = resolve({"output_dir": str(tmp_path / "out")})
    (problem,) = machine.check_output(run)
    assert problem.what == f"--output_dir {tmp_path / 'out'}"
    assert problem.why == f"it is a link to {tmp_path / 'nowhere'}, which is not there"
    (tmp_path / "nowhere").mkdir()
    assert machine.check_output(run) == []
