"""Files are found below a folder."""

import os
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.errors import UsageError
from llama_recipes_local.records import finding
from llama_recipes_local.records.finding import describe_files, files_below, files_matching


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    for folder in (data, other):
        folder.mkdir()
    (other / "b.csv").touch()
    (data / "a.csv").touch()
    (data / "linked").symlink_to(other)
    (other / "back").symlink_to(data)
    (data / "gone.csv").symlink_to(tmp_path / "nowhere")
    (data / "itself.csv").symlink_to(data / "itself.csv")
    found = [path.relative_to(data).as_posix() for path in files_below(data)]
    assert found == ["a.csv", "linked/b.csv"]
    assert describe_files(data) == "it holds a.csv, linked/b.csv"


def test_folders_that_are_nested_too_deeply_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "/".join("d" * 90)).mkdir(parents=True)
    assert files_below(tmp_path) == []
    (tmp_path / "/".join("d" * 101)).mkdir(parents=True)
    with pytest.raises(UsageError, match="is nested too deeply"):
        files_below(tmp_path)


def test_a_pattern_reads_each_file_once_where_links_lead_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    for name in ("x.csv", "a/y.csv", "a/b/z.csv", "a/b/z.txt", ".git/g.csv"):
        (tmp_path / name).touch()
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")

    def matching(pattern: str) -> list[str]:
        found = files_matching(tmp_path / pattern)
        return [path.relative_to(tmp_path).as_posix() for path in found]

    assert matching("**/*.csv") == ["a/b/z.csv", "a/y.csv", "x.csv"]
    assert matching("a/**/z.*") == ["a/b/z.csv", "a/b/z.txt"]
    assert matching("**/b/*") == ["a/b/z.csv", "a/b/z.txt"]
    assert matching("*/*.csv") == ["a/y.csv"] and matching("**/*.json") == []
    assert matching("none/**/*.csv") == []
    with pytest.raises(UsageError, match="matches anywhere on this machine"):
        files_matching(Path("/**/*.csv"))


def test_a_folder_of_too_many_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "MOST", 3)
    for name in "abc":
        (tmp_path / name).touch()
    assert len(files_below(tmp_path)) == 3
    (tmp_path / "d").touch()
    for look in (files_below, lambda folder: files_matching(folder / "**")):
        with pytest.raises(UsageError, match="is too large to search"):
            look(tmp_path)
    assert describe_files(tmp_path).startswith("it holds more than 3 files or folders")
    for name in "abcd":
        (tmp_path / name).unlink()
        (tmp_path / f"folder {name}").mkdir()
    with pytest.raises(UsageError, match="is too large to search"):
        files_below(tmp_path)


def test_a_folder_that_cannot_be_read_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(place: str) -> Any:
        if place.endswith("locked"):
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(finding.os, "scandir", refuse)
    with pytest.raises(UsageError, match=r"locked cannot be read\n.*Permission denied"):
        files_below(tmp_path)
