"""A few mistakes through the real command: its exit code, its streams, and what it leaves."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., "CompletedProcess[str]"]


def test_a_mistake_ends_with_code_2_and_a_report(
    run_finetuning: Run, tiny_model: Path, grammar_data: Path, tmp_path: Path
) -> None:
    done = run_finetuning(
        f"--model_name={tiny_model}",
        f"--data_root={grammar_data}",
        "--dataset=grammar_dataset",
        "--output_dir=out",
        "--use_peft",
        "--lora_alhpa=8",
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert all(line.startswith("--> imports") for line in done.stdout.splitlines())
    report = done.stderr[done.stderr.index("2 problems found, nothing was started:") :]
    assert "1. unknown flag --lora_alhpa" in report
    assert "fix: did you mean --lora_alpha?" in report
    assert "2. --context_length 4096" in report
    assert "the model has 512 positions" in report
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_flags_at_all(run_finetuning: Run, tmp_path: Path) -> None:
    done = run_finetuning(cwd=tmp_path)
    assert done.returncode == 2
    assert "no model was named" in done.stderr
    folder = tmp_path / "datasets/samsum"
    assert f"no train split of SAMSum in {folder}" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ranks
def test_under_torchrun_the_report_comes_once(run_finetuning: Run, tmp_path: Path) -> None:
    done = run_finetuning("--model_name=org/name", "--enable_fsdp", cwd=tmp_path, nproc=2)
    assert done.returncode != 0
    ours, _, of_torchrun = done.stderr.partition("=" * 60)  # which repeats it in its own report
    for report in (ours, of_torchrun):
        assert report.count("nothing was started") == 1
        assert f"there is no folder {tmp_path / 'org/name'}" in report
    assert list(tmp_path.iterdir()) == []
