"""Where relative data paths lead."""

from pathlib import Path

import pytest

from llama_recipes_local.storage import data_root


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_working_directory_is_the_last_resort(tmp_path: Path) -> None:
    assert data_root.data_root() == tmp_path
    assert data_root.resolve("datasets/a.csv") == tmp_path / "datasets" / "a.csv"


def test_the_environment_overrides_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_RECIPES_DATA_ROOT", "from-environment")
    assert data_root.resolve("a.csv") == tmp_path / "from-environment" / "a.csv"


def test_the_flag_overrides_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_RECIPES_DATA_ROOT", "from-environment")
    assert data_root.resolve("a.csv", "from-flag") == tmp_path / "from-flag" / "a.csv"
    assert data_root.resolve("a.csv") == tmp_path / "from-environment" / "a.csv"


def test_an_absolute_path_is_returned_as_it_is(tmp_path: Path) -> None:
    assert data_root.resolve(tmp_path / "a.csv", "elsewhere") == tmp_path / "a.csv"


def test_the_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data_root.resolve("~/a.csv") == tmp_path / "home" / "a.csv"
    assert data_root.resolve("a.csv", "~") == tmp_path / "home" / "a.csv"
