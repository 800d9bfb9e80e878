"""A short selection of what ``benchmarks/kills.py`` does a hundred times."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).resolve().parents[2] / "benchmarks" / "kills.py"


@pytest.mark.command
def test_a_killed_run_is_followed_at_once_and_to_the_bit(
    tiny_model: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "kills.json"
    words = ["--model", tiny_model, "--kills", "2", "--seed", "3", "--out", out]
    run = subprocess.run(
        [sys.executable, KILLS, *words], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert json.loads(out.read_text())["to the bit, nothing left"] == 2
