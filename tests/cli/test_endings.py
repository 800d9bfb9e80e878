"""How commands end on a broken pipe, when nobody reads their output."""

import subprocess
import sys
from pathlib import Path

import pytest

from llama_recipes_local.console import PIPE_CLOSED

PROJECT = Path(__file__).resolve().parents[2]
SAVED = "adapter_model.safetensors"


def start(environment: dict[str, str], cwd: Path, *words: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=cwd,
        text=True,
    )


def test_a_reader_may_close_the_pipe(environment: dict[str, str], tmp_path: Path) -> None:
    """As ``head`` does, the reader ends before all is written; nothing is reported."""
    script = tmp_path / "talks.py"
    script.write_text(
        "import sys\n"
        "from llama_recipes_local import cli\n"
        "def talk(*_):\n"
        "    for number in range(100_000):\n"
        "        print(number, flush=True)\n"
        "cli._run = talk\n"
        "sys.exit(cli.main([]))\n"
    )
    talking = start(environment, tmp_path, script)
    assert talking.stdout is not None and talking.stderr is not None
    assert talking.stdout.readline() == "0\n"
    talking.stdout.close()
    assert talking.stderr.read() == ""
    talking.stderr.close()
    assert talking.wait(600) == 1


@pytest.mark.parametrize(
    "words",
    [
        [PROJECT / "finetuning.py"],
        [PROJECT / "sft.py"],
        ["-m", "llama_recipes_local", "finetune"],
        ["-m", "llama_recipes_local", "merge"],
    ],
)
def test_help_may_be_cut_off(
    words: list[object], environment: dict[str, str], tmp_path: Path
) -> None:
    if PROJECT / "sft.py" in words:
        pytest.importorskip("trl")
    helping = start(environment, tmp_path, *words, "--help")
    assert helping.stdout is not None
    helping.stdout.close()
    helping.stdout = None
    assert helping.communicate(timeout=600)[1] == ""
    assert helping.returncode in (0, 1)  # argparse itself ignores it


def test_the_end_of_another_pipe_is_an_error(environment: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "breaks.py"
    script.write_text(
        "from llama_recipes_local.console import exit_on_broken_pipe\n"
        "with exit_on_broken_pipe():\n"
        "    raise BrokenPipeError('a worker is gone')\n"
    )
    _, said = start(environment, tmp_path, script).communicate(timeout=600)
    assert said.endswith("BrokenPipeError: a worker is gone\n")


def test_training_continues_when_nobody_reads_its_output(
    tiny_model: Path, grammar_data: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    flags = ["--model_name", tiny_model, "--data_root", grammar_data, "--use_peft"]
    flags += ["--dataset", "grammar_dataset", "--context_length", 64, "--num_epochs", 1]
    flags += ["--output_dir", tmp_path / "out"]
    training = start(environment, tmp_path, PROJECT / "finetuning.py", *flags)
    assert training.stdout is not None
    while not (line := training.stdout.readline()).startswith("step "):
        assert line, training.communicate()[1]
    training.stdout.close()
    training.stdout = None
    _, said = training.communicate(timeout=600)
    assert said.count(PIPE_CLOSED) == 1
    assert "Error" not in said
    assert training.returncode == 0
    assert (tmp_path / "out" / SAVED).is_file()
