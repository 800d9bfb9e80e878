"""What a Python that cannot run the package says: a line, and no traceback."""

import os
import runpy
import shlex
import subprocess
import sys
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from llama_recipes_local import _python

PROJECT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("script", ["finetuning.py", "sft.py"])
def test_an_old_python_is_refused_in_a_line(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(PROJECT / script))
    with pytest.raises(SystemExit) as ended:
        _python.check_version()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{script}: {sys.executable} is Python 3.9.18, and ")
    assert "; run it with " in line


def test_an_import_elsewhere_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    with pytest.raises(ImportError, match=r"3\.9\.18, and llama_recipes_local needs 3\.10"):
        runpy.run_path(str(PROJECT / "llama_recipes_local/__init__.py"))


@pytest.mark.command
@pytest.mark.parametrize("words", ["-m llama_recipes_local --help", "finetuning.py", "sft.py"])
def test_a_working_directory_that_was_removed(words: str, tmp_path: Path) -> None:
    command = words.split() if words.startswith("-m") else [str(PROJECT / words)]
    gone = tmp_path / "gone"
    gone.mkdir()
    there = 'cd "$0" && rmdir "$0" && exec "$@"'
    done = subprocess.run(
        ["bash", "-c", there, gone, sys.executable, *command],
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("the working directory of this shell was removed; cd to")


def test_the_modules_that_are_read_before_are_plain() -> None:
    """No annotation of them is evaluated that Python 3.9 does not know."""
    for name in ("__init__.py", "_python.py"):
        text = (PROJECT / "llama_recipes_local" / name).read_text()
        lines = [line for line in text.splitlines() if line.lstrip().startswith("def ")]
        assert not any(" | " in line and '"' not in line for line in lines)
        assert "match " not in text


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout, and a Python, in folders whose names have a space; finetuning.py is running."""
    folder = tmp_path / "my checkout"
    folder.mkdir()
    monkeypatch.setattr(_python, "ROOT", folder)
    monkeypatch.setattr(sys, "executable", "/opt/my python/bin/python")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(folder / "finetuning.py"))
    return folder


def made(checkout: Path) -> str:
    """Return the checkout's own Python, once make has run."""
    own = checkout / ".venv/bin/python"
    own.parent.mkdir(parents=True)
    own.touch()
    return str(own)


def test_missing_packages_come_with_commands_that_a_shell_reads(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_python, "NEEDED", ("no_such_package",))
    install = ["/opt/my python/bin/python", "-m", "pip", "install", str(checkout)]
    assert shlex.split(_python.with_packages("sft.py")) == install
    own = made(checkout)
    with pytest.raises(SystemExit):
        _python.check_packages()
    first, _, second = capsys.readouterr().err.partition("; run ")[2].partition(", or ")
    assert shlex.split(first) == [own, str(checkout / "finetuning.py")]
    assert shlex.split(second) == install


def test_an_old_python_comes_with_a_command_that_a_shell_reads(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    own = made(checkout)
    with pytest.raises(SystemExit):
        _python.check_version()
    assert shlex.split(capsys.readouterr().err.partition("; run it with ")[2]) == [own]


@pytest.fixture
def imported(tmp_path: Path) -> ModuleType:
    """A module that was imported, whose bytecode is where Python says it is."""
    module = ModuleType("imported")
    module.__file__ = str(tmp_path / "imported.py")
    module.__spec__ = spec_from_file_location("imported", module.__file__)
    return module


@pytest.mark.parametrize("variable", [None, "1"])
def test_bytecode_that_is_there_is_no_matter(
    imported: ModuleType, variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", variable is not None)
    assert imported.__spec__ is not None and imported.__spec__.cached is not None
    cached = Path(imported.__spec__.cached)
    cached.parent.mkdir()
    cached.touch()
    assert _python.why_compiled_each_time(imported) is None
    cached.unlink()
    assert bool(_python.why_compiled_each_time(imported))


@pytest.mark.parametrize(
    ("variable", "writable", "said"),
    [
        ("1", True, "PYTHONDONTWRITEBYTECODE is set; unset PYTHONDONTWRITEBYTECODE"),
        (
            "1",
            False,
            "PYTHONDONTWRITEBYTECODE is set; unset PYTHONDONTWRITEBYTECODE and "
            "export PYTHONPYCACHEPREFIX=~/.cache/pycache",
        ),
        (None, True, "Python was started with -B; leave -B out"),
        ("", False, "/__pycache__ cannot be written; export PYTHONPYCACHEPREFIX=~/.cache/pycache"),
    ],
)
def test_missing_bytecode_comes_with_its_reason_and_a_fix(
    imported: ModuleType,
    variable: str | None,
    writable: bool,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    if variable:
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", variable)
    monkeypatch.setattr(sys, "dont_write_bytecode", variable != "")
    monkeypatch.setattr(os, "access", lambda path, mode: writable)
    found = _python.why_compiled_each_time(imported)
    assert found is not None and found.endswith(said)
