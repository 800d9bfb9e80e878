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


def test_the_environment_goes_over_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_RECIPES_DATA_ROOT", "from-environment")
    assert data_root.resolve("a.csv") == tmp_path / "from-environment" / "a.csv"


def test_the_flag_goes_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_RECIPES_DATA_ROOT", "from-environment")
    data_root.set_data_root("from-flag")
    assert data_root.resolve("a.csv") == tmp_path / "from-flag" / "a.csv"
    data_root.set_data_root("")
    assert data_root.resolve("a.csv") == tmp_path / "from-environment" / "a.csv"


def test_an_absolute_path_stays(tmp_path: Path) -> None:
    data_root.set_data_root("elsewhere")
    assert data_root.resolve(tmp_path / "a.csv") == tmp_path / "a.csv"


def test_the_home_directory_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data_root.resolve("~/a.csv") == tmp_path / "home" / "a.csv"
    data_root.set_data_root("~")
    assert data_root.resolve("a.csv") == tmp_path / "home" / "a.csv"
