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
