"""The types of ``finetune``'s flags are the configurations'; mypy and notebooks see them."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from typed_flags import FILE, make_types

from llama_recipes_local import finetune
from llama_recipes_local.preflight.flags import known_flags

CALLS = """
from pathlib import Path
from llama_recipes_local import Result, finetune

finetune(model_name=Path("m"), dataset="d.jsonl", use_peft=True, lr=1e-4, target_modules=["q"])
finetune(model_name="m", grammar_dataset={"train_split": Path("a.csv")}, num_processes=2)
result: Result = finetune(modle_name="m")
finetune(lr="fast")
finetune(grammar_dataset={"train_splt": "a.csv"})
finetune("m")
"""


def test_the_file_is_made_from_the_configurations() -> None:
    assert FILE.read_text("utf-8") == make_types(), "run `make flag-types`"


def test_a_notebook_completes_every_flag() -> None:
    plain = {flag for flag in known_flags() if "." not in flag}
    assert plain < set(inspect.signature(finetune).parameters)
    assert len(plain) > 100


@pytest.mark.command
def test_a_type_checker_reports_wrong_names_and_values(tmp_path: Path) -> None:
    project = Path(__file__).resolve().parents[2]
    calls = tmp_path / "calls.py"
    calls.write_text(CALLS)
    words = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(calls)]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True)
    errors = (line for line in done.stdout.splitlines() if ": error:" in line)
    lines = sorted({int(line.split(":")[1]) for line in errors})
    assert lines == [7, 8, 9, 10], done.stdout + done.stderr
