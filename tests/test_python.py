"""What a Python that cannot run the package says: a line, and no traceback."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

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
