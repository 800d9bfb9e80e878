"""The commands of the README and of the pages for users run; both languages have the same."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from made_benchmarks import hub_clone, questions
from sft_guide import write_clone

from llama_recipes_local.commands.prepare.grammar.command import TRAINING_FILE, published_data
from llama_recipes_local.commands.prepare.stand_in.command import RECORD, make_stand_in
from llama_recipes_local.commands.prepare.stand_in.settings import StandInSettings

PROJECT = Path(__file__).resolve().parents[1]
README = PROJECT / "README.md"
PAGES = [
    README,
    *(PROJECT / "docs" / f"{name}.md" for name in ("install", "models", "several-gpus")),
    *(PROJECT / "docs" / f"{name}.md" for name in ("resuming", "after-training")),
]
SHORT = "--max_train_step 2 --max_eval_step 2"
# Fetching wheels and models is the work of others.
NOT_RUN = ("pip download", "PIP_", "HF_ENDPOINT", "hf ", "modelscope ")
MODELS = r"\.\./(Llama-2-7b-hf|Llama-3\.1-8B-Instruct)/?"


def blocks(path: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language, without comments."""
    found = re.findall(rf"```{language}\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    return [re.sub(r" +#.*", "", block) for block in found]


def commands(path: Path) -> list[str]:
    """Return the shell commands, each on one line."""
    joined = "".join(blocks(path, "shell")).replace("\\\n", " ")
    return [" ".join(line.split()) for line in joined.splitlines() if line.strip()]


def run_here() -> list[str]:
    found = dict.fromkeys(command for page in PAGES for command in commands(page))
    return [command for command in found if not command.startswith(NOT_RUN)]


def test_every_kind_of_command_is_there():
    programs = [command.split()[0] for command in run_here()]
    assert programs.count("make") >= 3
    assert {"torchrun", "llama-recipes-local"} <= set(programs)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every command saves and reads the adapter."""
    return tmp_path_factory.mktemp("readme") / "adapter"


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in of two steps, recorded as one of the default settings, which takes a minute."""
    folder = tmp_path_factory.mktemp("models") / "stand-in"
    assert make_stand_in(folder, published_data(TRAINING_FILE), StandInSettings(steps=2))
    record = json.loads((folder / RECORD).read_text("utf-8"))
    record["settings"] = asdict(StandInSettings())
    (folder / RECORD).write_text(json.dumps(record), "utf-8")
    return folder


def shortened(words: list[str]) -> str:
    """Return the flags that make a training a matter of seconds, and let it follow another."""
    if words[1] == "sft":
        return "--max_steps 2"
    named = words[0] != "make" or any(word.startswith("MODEL=") for word in words)
    resumed = "--resume_from_checkpoint" in " ".join(words)
    return SHORT + " --context_length 256" * named + " --overwrite_output_dir" * (not resumed)


@pytest.mark.command
@pytest.mark.ranks
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", run_here())
def test_command_runs(command, tiny_model, stand_in, grammar_data, adapter, environment, tmp_path):
    rows = [
        {"prompt": f"{number} and one is ", "completion": str(number + 1)} for number in range(40)
    ]
    (grammar_data / "my_rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    clone = grammar_data / "datasets/openassistant-guanaco"
    if not clone.is_dir():
        write_clone(clone)
    command = re.sub(MODELS, str(tiny_model), command)
    command = re.sub(r"\.\./Llama-2-7b-(my-lora|high-rank)/?", str(adapter), command)
    command = command.replace(" both.html", f" {tmp_path / 'both.html'}")
    command = re.sub(r"\.\./Llama-2-7b-(merged|gguf)", rf"{tmp_path}/\1", command)
    words = shlex.split(command)
    if words[0] == "make":
        if not Path(sys.prefix, ".installed").is_file():
            pytest.skip("the environment was not made by make")
        own, short = [word for word in words if word.startswith("ARGS=")], shortened(words)
        named = any(word.startswith("MODEL=") for word in words)
        words = [word for word in words if word not in own] + [
            *([] if named else ["MODEL=stand-in"]),
            f"{' '.join(own) or 'ARGS='} {short}",
            f"VENV={sys.prefix}",
            f"STAND_IN={stand_in}",
            f"OUTPUT={tmp_path / 'out' if own or words[1] != 'finetune' else adapter}",
        ]
    else:
        words[0] = str(Path(sys.executable).with_name(words[0]))
        if "finetuning.py" in words:
            words += shortened(words).split()
    if "inspect" in words:
        words += ["--png", str(tmp_path / "lengths.png")]
    if "evaluate" in words:
        words += ["--out", str(tmp_path / "evaluation.json")]
    if "--benchmark_path" in words:
        rows = {part: questions("law", part, 5) for part in ("dev", "test")}
        clone = hub_clone(tmp_path / "mmlu", {"jurisprudence": rows})
        words[words.index("--benchmark_path") + 1] = str(clone)
    elif "evaluate" in words:
        words += ["--max_new_tokens", "4"]
    data = {"LLAMA_RECIPES_DATA_ROOT": str(grammar_data), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, cwd=PROJECT, env=environment | data, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if words[0] != str(Path(sys.executable).with_name("llama-recipes-local")):
        assert (adapter / "adapter_model.safetensors").is_file()


def test_python_block_runs(environment):
    (block,) = blocks(README, "python")
    subprocess.run([sys.executable, "-c", block], check=True, env=environment, cwd=os.sep)
