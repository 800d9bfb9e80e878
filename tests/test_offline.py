"""What importing the package sets in the environment, and that it comes before torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_recipes_local import _offline

PROJECT = Path(__file__).resolve().parents[1]

# prints the environment's variable at the moment in which torch is imported, and ends there
UNTIL_TORCH = """
import os, runpy, sys

class UntilTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, UntilTorch())
sys.argv = sys.argv[1:]
if sys.argv[0].endswith(".py"):
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""

DOORS = [
    [str(PROJECT / "finetuning.py"), "--lr", "1"],
    [str(PROJECT / "sft.py"), "--seed", "1"],
    ["llama_recipes_local", "generate", "--adapter", "x", "--prompt", "y"],
    ["llama_recipes_local", "evaluate", "--adapter", "x"],
    ["llama_recipes_local", "inspect"],
]


@pytest.mark.command
@pytest.mark.parametrize("words", DOORS, ids=lambda words: Path(words[0]).name + words[1])
@pytest.mark.parametrize("given", ["", "ACTIVE"])
def test_threads_wait_without_spinning_in_every_command(
    words: list[str], given: str, environment: dict[str, str]
) -> None:
    own = {"OMP_WAIT_POLICY": given} if given else {}
    done = subprocess.run(
        [sys.executable, "-c", UNTIL_TORCH, *words],
        env=environment | own,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [given or "PASSIVE"], done.stderr


def test_what_the_user_has_set_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    _offline.set_defaults()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    _offline.set_defaults()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.command
@pytest.mark.parametrize("script", ["finetuning.py", "sft.py"])
def test_a_python_without_the_packages_says_so_in_a_line(script: str) -> None:
    """-S leaves out site-packages, as a system's Python has none of them."""
    plain = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-S", str(PROJECT / script), "--help"],
        env=plain,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"{script}: {sys.executable} has no fire, torch" in done.stderr
    assert f"{sys.executable} -m pip install {PROJECT}" in done.stderr
