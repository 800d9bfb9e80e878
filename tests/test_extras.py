"""The command that installs what is missing: for this Python, and never by this package's name."""

import importlib.metadata
import shlex
import sys
from pathlib import Path

import pytest

from llama_recipes_local import extras

REQUIRES = ["torch>=2.11", "trl!=1.15.*,>=1.14; extra == 'sft'", 'wandb>=0.30 ; extra == "wandb"']


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtual environment's Python below the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ".venv/bin/python"
    monkeypatch.setattr(sys, "executable", str(path))
    return path


def test_an_extra_of_a_source_tree(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "SOURCE", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    assert extras.install_extra("sft") == ".venv/bin/python -m pip install -e '.[sft]'"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert extras.install_extra("sft") == f"{python} -m pip install -e '{tmp_path}[sft]'"


def test_an_extra_of_an_installed_package(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "SOURCE", tmp_path)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRES)
    assert extras.install_extra("sft") == ".venv/bin/python -m pip install 'trl!=1.15.*,>=1.14'"
    assert extras.install_extra("wandb") == ".venv/bin/python -m pip install 'wandb>=0.30'"


def test_a_copy_of_the_package_has_a_command_too(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "SOURCE", tmp_path)
    monkeypatch.setattr(extras, "DISTRIBUTION", "no-such-distribution")
    assert extras.install_extra("sft") == ".venv/bin/python -m pip install PACKAGE"


def test_paths_that_a_shell_would_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/my python/bin/python")
    assert extras.install("a>1") == "'/opt/my python/bin/python' -m pip install 'a>1'"
    source = tmp_path / "Ann's checkout"
    source.mkdir()
    (source / "pyproject.toml").touch()
    monkeypatch.setattr(extras, "SOURCE", source)
    assert shlex.split(extras.install_extra("sft"))[-2:] == ["-e", f"{source}[sft]"]


def test_what_evaluate_needs_is_always_installed() -> None:
    project = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text("utf-8")
    always = project.split("dependencies = [")[1].split("\n]")[0]
    for name in ("scipy", "rouge-score", "nltk"):
        assert f'"{name}>=' in always


def test_the_packages_of_modules_are_those_that_python_finds() -> None:
    found, by_python = extras.distributions_of(), importlib.metadata.packages_distributions()
    assert found["torch"] == ["torch"]
    assert found["yaml"] == ["PyYAML"]
    missing = {name for name in by_python if set(by_python[name]) - set(found.get(name, []))}
    assert missing - {"__pycache__"} == set()


def test_the_modules_of_a_package_are_in_its_list_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ["one/a.py,sha256=x,1", "one/b.py,,", "two.py,,", "three.abi3.so,,"]
    files += ["__pycache__/two.pyc,,", "A-1.dist-info/RECORD,,", "../../../bin/a,,", '"four/a,b",,']
    folder = tmp_path / "A-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: A\n")
    (folder / "RECORD").write_text("\n".join(files))
    kept = importlib.metadata.distributions(path=[str(tmp_path)])
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: kept)
    found = extras.distributions_of.__wrapped__()
    assert found == {name: ["A"] for name in ("one", "two", "three", "four")}
