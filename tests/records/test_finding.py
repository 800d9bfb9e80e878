"""Files are found below a folder."""

from pathlib import Path

import pytest

from llama_recipes_local.errors import UsageError
from llama_recipes_local.records.finding import describe_files, files_below


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    for folder in (data, other):
        folder.mkdir()
    (other / "b.csv").touch()
    (data / "a.csv").touch()
    (data / "linked").symlink_to(other)
    (other / "back").symlink_to(data)
    (data / "gone.csv").symlink_to(tmp_path / "nowhere")
    found = [path.relative_to(data).as_posix() for path in files_below(data)]
    assert found == ["a.csv", "linked/b.csv"]
    assert describe_files(data) == "it holds a.csv, linked/b.csv"


def test_folders_that_are_nested_too_deeply_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "/".join("d" * 90)).mkdir(parents=True)
    assert files_below(tmp_path) == []
    (tmp_path / "/".join("d" * 101)).mkdir(parents=True)
    with pytest.raises(UsageError, match="is nested too deeply"):
        files_below(tmp_path)
