"""``make finetune`` names a fresh folder, so that a second run does not meet the first one's."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.command


def output(folder: Path, *words: str) -> str:
    shutil.copy(PROJECT / "Makefile", folder)
    for name in ("pyproject.toml", "constraints.txt", "hatch_build.py"):
        (folder / name).touch()
    made = subprocess.run(
        ["make", "-n", *words, "VENV=/no-venv"], cwd=folder, capture_output=True, text=True
    )
    (found,) = re.findall(r"--output_dir (\S+)", made.stdout)
    return str(found).strip("'\"")


def test_folders_are_numbered(tmp_path: Path) -> None:
    assert output(tmp_path, "finetune") == "outputs/grammar_dataset"
    (tmp_path / "outputs" / "grammar_dataset").mkdir(parents=True)
    assert output(tmp_path, "finetune") == "outputs/grammar_dataset-2"
    (tmp_path / "outputs" / "grammar_dataset-2").mkdir()
    assert output(tmp_path, "finetune") == "outputs/grammar_dataset-3"
    for flag in ("--resume_from_checkpoint auto", "--overwrite_output_dir"):
        assert output(tmp_path, "finetune", f"ARGS={flag}") == "outputs/grammar_dataset-2"
    assert output(tmp_path, "finetune", "OUTPUT=mine") == "mine"
    for target in ("qlora", "sft"):
        assert output(tmp_path, target) == f"outputs/{target}"
        (tmp_path / "outputs" / target).mkdir()
        assert output(tmp_path, target) == f"outputs/{target}-2"
