"""The grammar data set is copied whole, and never over the user's files."""

import os
from pathlib import Path

import pytest

from llama_recipes_local import cli
from llama_recipes_local.commands.prepare.grammar import command
from llama_recipes_local.errors import UsageError

ROWS = {command.TRAINING_FILE: 13016, command.VALIDATION_FILE: 2988}


def test_both_files_are_copied(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "grammar"
    files = command.prepare_grammar(folder)
    assert {file.path.name: file.rows for file in files} == ROWS
    assert all(file.written and file.path.parent == folder for file in files)
    for name in ROWS:
        assert (folder / name).read_bytes() == command.published_data(name).read_bytes()
    assert {entry.name for entry in folder.iterdir()} == set(ROWS)


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    own = tmp_path / command.TRAINING_FILE
    content = 'input,target\nA,B\n"C\nC",D\n'.encode("latin-1") + b"caf\xe9,E\n"
    own.write_bytes(content)
    training, validation = command.prepare_grammar(tmp_path)
    assert own.read_bytes() == content
    assert (training.written, training.rows) == (False, 3)
    assert validation.written


def test_an_interrupted_copy_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="disk full"):
            command.prepare_grammar(tmp_path)
    assert not any((tmp_path / name).exists() for name in ROWS)
    assert all(file.written for file in command.prepare_grammar(tmp_path))
    assert {entry.name for entry in tmp_path.iterdir()} == set(ROWS)


def test_a_missing_copy_of_upstream_is_refused_with_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "PUBLISHED_FOLDER", tmp_path / "gone")
    with pytest.raises(UsageError, match="vendoring make"):
        command.prepare_grammar(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_uses_the_data_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLAMA_RECIPES_DATA_ROOT", str(tmp_path))
    folder = tmp_path / "datasets" / "grammar"
    assert cli.main(["prepare", "grammar"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{folder / name}: {rows} rows, written" for name, rows in ROWS.items()
    ]
    assert cli.main(["prepare", "grammar"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{folder / name}: {rows} rows, exists already, unchanged" for name, rows in ROWS.items()
    ]
