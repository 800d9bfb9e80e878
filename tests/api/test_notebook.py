"""``finetune`` in a Jupyter kernel: one live line, problems without a traceback, Interrupt."""

from pathlib import Path
from typing import Any

import pytest
from notebook_kernel import Shown, run_cells

pytestmark = pytest.mark.command
FIRST, AGAIN, REFUSED, INTERRUPTED, RESUMED, ALIVE = range(6)
INTERRUPTING = """
import os, signal
from llama_recipes_local.training.stepping import Stepper
step = Stepper.step
def interrupted(*given):
    os.kill(os.getpid(), signal.SIGINT)
    return step(*given)
Stepper.step = interrupted
finetune(**flags, output_dir="stopped")
"""
RESUMING = """
Stepper.step = step
finetune(**flags, output_dir="stopped", resume_from_checkpoint="auto").steps
"""


@pytest.fixture(scope="module")
def cells(
    short_run: dict[str, Any],
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Shown]:
    """What the cells of a notebook showed."""
    flags = {name: str(v) if isinstance(v, Path) else v for name, v in short_run.items()}
    code = [
        f"from llama_recipes_local import finetune\nflags = {flags!r}\n"
        'finetune(**flags, output_dir="one")',
        'finetune(**flags, output_dir="two").plot()',
        "finetune(modle_name=1)",
        INTERRUPTING,
        RESUMING,
        'print(sorted(map(str, __import__("pathlib").Path().iterdir())))',
    ]
    folder = tmp_path_factory.mktemp("notebook")
    return run_cells(code, folder, environment | {"OMP_NUM_THREADS": "1"})


def test_a_run_has_one_live_line_and_its_result_a_table(cells: list[Shown]) -> None:
    assert "\repoch 1/1" in cells[FIRST].text
    assert "IProgress" not in cells[FIRST].text
    assert "<td style='text-align:left'>tiny-llama, LoRA</td>" in cells[FIRST].values["text/html"]


def test_a_second_run_in_the_kernel_shows_its_figure(cells: list[Shown]) -> None:
    assert "imports" not in cells[AGAIN].text
    assert cells[AGAIN].values["image/png"]


def test_problems_are_shown_without_a_traceback(cells: list[Shown]) -> None:
    refused = cells[REFUSED]
    assert refused.error == "UsageError"
    assert "unknown flag --modle_name\n   why: no configuration" in refused.text
    assert "Traceback" not in refused.text and "calling.py" not in refused.text


def test_interrupt_saves_and_the_kernel_lives(cells: list[Shown]) -> None:
    interrupted = cells[INTERRUPTED]
    assert interrupted.error == "InterruptedRun"
    assert "stopped after step 1 of 3, saved in" in interrupted.text
    assert cells[RESUMED].values["text/plain"] == "3"
    assert cells[ALIVE].text == "['one', 'stopped', 'two']\n"
