"""A misspelt field of a configuration does not pass mypy, which ``make check`` runs."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.command

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "llama_recipes_local"
# a module, or a folder one of whose modules reads the field; the field, and how it is misspelt
PLANTED = [
    ("preflight/*.py", "train.max_train_step", "train.max_train_stepz"),
    ("models/loading.py", "train.attn_implementation", "train.attn_implementatoin"),
    ("commands/sft/*.py", "run.local.adapter_dtype", "run.local.adaptor_dtype"),
]


def test_misspelt_fields_are_reported(tmp_path: Path) -> None:
    modules, options, expected = [], [], []
    for pattern, right, wrong in PLANTED:
        texts = {path: path.read_text("utf-8") for path in sorted(PACKAGE.glob(pattern))}
        module, text = next((path, text) for path, text in texts.items() if right in text)
        shadow = tmp_path / module.name
        # mypy reads the shadow where it would read the module; of another size, not the cache
        shadow.write_text(text.replace(right, wrong, 1) + "#\n", "utf-8")
        options += ["--shadow-file", str(module), str(shadow)]
        modules.append(str(module))
        line = text[: text.index(right)].count("\n") + 1
        name = wrong.rpartition(".")[2]
        expected.append((f"{module.relative_to(PROJECT)}:{line}:", f'has no attribute "{name}"'))
    command = [sys.executable, "-m", "mypy", *options, *modules]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == len(expected), done.stdout + done.stderr
    for place, reason in expected:
        assert any(line.startswith(place) and reason in line for line in errors), done.stdout
