"""What make hands on, with programs in the place of Python that only note what they were given."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.command
PROJECT = Path(__file__).resolve().parents[1]

# notes its arguments, each in a line, and runs -c as a Python of VERSION that has pip would;
# -m venv makes an environment of such programs
PROGRAM = """#!/bin/bash
if [ "$1" = -c ]; then
    exec REAL -c "import sys, types; sys.version_info = tuple(map(int, 'VERSION'.split('.')))
sys.modules['pip'] = types.ModuleType('pip'); exec(sys.argv.pop(1))" "${@:2}"
fi
{ basename "$0"; printf '%s\\n' "$@"; echo; } >> LOG
if [ "$2" = venv ]; then
    folder="${@: -1}"; [ "$3" = --clear ] && rm -rf "$folder"
    mkdir -p "$folder/bin"; touch "$folder/pyvenv.cfg"
    for name in python torchrun llama-recipes-local; do cp "$0" "$folder/bin/$name"; done
fi
if [ "$2" = pip ]; then echo "${PIP_SAYS-}"; exit "${PIP_EXITS-0}"; fi
"""


class Machine:
    """A copy of the Makefile in a folder of its own, with programs that note their arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        for name in ("Makefile", "pyproject.toml", "constraints.txt", "hatch_build.py"):
            shutil.copy(PROJECT / name, folder)

    def python(self, version: str) -> Path:
        path = self.folder / f"python{version}"
        program = PROGRAM.replace("VERSION", version).replace("REAL", shlex.quote(sys.executable))
        path.write_text(program.replace("LOG", shlex.quote(str(self.log))))
        path.chmod(0o755)
        return path

    def make(self, *words: str, path: str = "") -> "subprocess.CompletedProcess[str]":
        self.log.unlink(missing_ok=True)
        of_make = ("MAKEFLAGS", "MAKELEVEL", "PYTHON")
        kept = {name: value for name, value in os.environ.items() if name not in of_make}
        kept |= {"PATH": path} if path else {}
        return subprocess.run(
            ["make", *words], cwd=self.folder, env=kept, capture_output=True, text=True
        )

    def calls(self) -> list[list[str]]:
        """The programs that ran, each with its arguments."""
        if not self.log.exists():
            return []
        return [call.split("\n") for call in self.log.read_text().strip("\n").split("\n\n")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    python = machine.python("3.11.7")
    assert machine.make("install", f"PYTHON={python}").returncode == 0
    for extra in ("quantization", "sft"):
        (tmp_path / f".venv/.installed-{extra}").touch()
    return machine


TEXTS = ["a b", "it's", "run#1", "2024_11_27", "模 型", 'x"y', "a;b", "$HOME", "a,b", "*"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("target", ["finetune", "qlora", "sft"])
def test_a_text_is_one_word_of_the_command(target: str, text: str, machine: Machine) -> None:
    given = [f"MODEL={text}", f"DATASET=d/{text}", f"OUTPUT=o {text}"]
    done = machine.make(target, *given, "ARGS=--lr 1e-4 --x 'y z'")
    assert done.returncode == 0, done.stderr
    call = machine.calls()[-1]
    data = "--dataset_name" if target == "sft" else "--dataset"
    assert call[call.index(data) + 1] == f"d/{text}"
    assert call[call.index("--output_dir") + 1] == f"o {text}"
    model = "--model_name_or_path" if target == "sft" else "--model_name"
    assert call[call.index(model) + 1] == text
    assert call[-4:] == ["--lr", "1e-4", "--x", "y z"]
    assert ("--config" in call) is (target == "qlora")


def test_defaults(machine: Machine) -> None:
    assert machine.make("finetune", "NPROC=2").returncode == 0
    call = machine.calls()[-1]
    assert call[:3] == ["python", "-m", "llama_recipes_local.torchrun"]
    assert call[call.index("--nproc_per_node") + 1] == "2"
    assert call[call.index("--model_name") + 1] == "models/stand-in"
    assert call[call.index("--output_dir") + 1] == "outputs/grammar_dataset"
    assert machine.make("sft", "MODEL=m").returncode == 0
    call = machine.calls()[-1]
    assert "datasets/grammar" in call and "outputs/sft" in call
    assert call[:3] == ["python", "-m", "llama_recipes_local.torchrun"]
    assert machine.make("finetune", "DATASET=data/my rows.csv", "MODEL=m").returncode == 0
    assert machine.calls()[-1][-1] == "outputs/my_rows"
    (machine.folder / "outputs/it's").mkdir(parents=True)
    assert machine.make("finetune", "DATASET=it's", "MODEL=m").returncode == 0
    assert machine.calls()[-1][-1] == "outputs/it's-2"


def test_the_model_and_its_settings(machine: Machine) -> None:
    """SmolLM2 where it could be made, with the recipe for it unless the user names another."""
    (machine.folder / "models/smollm2-135m-instruct").mkdir(parents=True)
    smollm2 = ["--model_name", "models/smollm2-135m-instruct"]
    stand_in = ["--model_name", "models/stand-in", "--num_epochs", "1"]
    for words, expected in {
        (): [*smollm2, "--config", "first_run"],
        ("ARGS=--config lora",): [*smollm2, "--output_dir", "outputs/config", "--config", "lora"],
        ("ARGS=--config full", "DATASET=d"): [*smollm2, "--dataset", "d", "--output_dir"],
        ("MODEL=stand-in",): stand_in,
        ("MODEL=../m",): ["--model_name", "../m", "--use_peft"],
    }.items():
        assert machine.make("finetune", *words).returncode == 0
        assert machine.calls()[-1][2 : 2 + len(expected)] == expected
        prepared = [
            call for call in machine.calls() if call[:2] == ["llama-recipes-local", "prepare"]
        ]
        made = {"stand-in", "smollm2"} & {call[2] for call in prepared}
        wanted = {"stand-in"} if expected is stand_in else {"smollm2"}
        assert made == (set() if "MODEL=../m" in words else wanted)
    refused = machine.make("qlora", "ARGS=--config lora")
    assert refused.returncode == 2 and "make qlora is --config qlora" in refused.stderr
    for target in ("qlora", "sft"):
        assert machine.make(target).returncode == 0
        assert "models/stand-in" in machine.calls()[-1]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model=x", "unknown variable model"),
        ("nproc=2", "unknown variable nproc"),
        ("DATSET=x", "unknown variable DATSET"),
        ("NPROC=two", "NPROC=two: it is a number"),
        ("NPROC=0", "NPROC=0: it is a number"),
        ("NPROC=2 3", "NPROC=2 3: it is a number"),
        ("MODEL=", "MODEL is empty"),
        ("OUTPUT= ", "OUTPUT is empty"),
    ],
)
def test_what_would_be_ignored_is_refused(word: str, said: str, machine: Machine) -> None:
    done = machine.make("finetune", word)
    assert done.returncode == 2 and machine.calls() == []
    assert said in done.stderr and done.stderr.count("\n") == 1


def test_a_variable_of_pip_or_of_the_data_is_passed_on(machine: Machine) -> None:
    words = ("PIP_INDEX_URL=https://x/simple", "LLAMA_RECIPES_CACHE=a b", "ARGS=--a.b=c --d=e f")
    assert machine.make("finetune", *words).returncode == 0


@pytest.mark.parametrize("version", ["3.9.18", "2.7.18"])
def test_an_old_python_is_refused_in_a_line(version: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    done = machine.make("install", f"PYTHON={machine.python(version)}")
    assert done.returncode == 2 and machine.calls() == []
    assert f"Python 3.10 or newer is needed, and {tmp_path}/python{version} is" in done.stderr
    assert "make PYTHON=" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / ".venv").exists()


def test_a_python_that_is_not_there(tmp_path: Path) -> None:
    done = Machine(tmp_path).make("install", "PYTHON=python3.99")
    assert done.returncode == 2 and "python3.99 does not run" in done.stderr.splitlines()[-1]


def venvs(machine: Machine) -> list[list[str]]:
    return [call[3:] for call in machine.calls() if call[1:3] == ["-m", "venv"]]


def test_an_environment_is_made_once(machine: Machine) -> None:
    assert machine.make("install").returncode == 0
    assert venvs(machine) == []
    os.utime(machine.folder / "pyproject.toml")
    assert machine.make("install", "PYTHON=python3.99").returncode == 2  # which was asked for
    assert machine.make("install").returncode == 0
    assert venvs(machine) == []  # what it lacks is installed into it


def test_an_environment_of_an_old_python_is_made_again(machine: Machine) -> None:
    shutil.copy(machine.python("3.9.18"), machine.folder / ".venv/bin/python")
    machine.python("3.12.1").rename(machine.folder / "python3")  # the default, which nobody named
    assert machine.make("install", path=f"{machine.folder}:{os.environ['PATH']}").returncode == 0
    assert venvs(machine) == [["--clear", ".venv"]]


def test_an_environment_of_another_python_than_was_named_is_made_again(machine: Machine) -> None:
    python = machine.python("3.12.1")
    assert machine.make("install", f"PYTHON={python}").returncode == 0
    assert venvs(machine) == [["--clear", ".venv"]]
    assert machine.make("install", f"PYTHON={python}").returncode == 0
    assert venvs(machine) == []


def test_an_environment_whose_python_is_gone_is_made_again(machine: Machine) -> None:
    (machine.folder / ".venv/bin/python").unlink()
    (machine.folder / ".venv/bin/python").symlink_to("/nowhere/python3")
    assert machine.make("install", f"PYTHON={machine.python('3.11.7')}").returncode == 0
    assert venvs(machine) == [["--clear", ".venv"]]


def test_a_half_made_environment_is_made_whole(machine: Machine) -> None:
    (machine.folder / ".venv/.installed").unlink()
    done = machine.make("install", f"PYTHON={machine.python('3.11.7')}")
    assert done.returncode == 0 and "source .venv/bin/activate" in done.stdout
    assert any(call[-2:] == ["--editable", "."] for call in machine.calls())


def test_a_folder_that_is_no_environment_is_not_emptied(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    python = machine.python("3.11.7")
    assert machine.make("install", "VENV=mine", f"PYTHON={python}").returncode == 0
    assert venvs(machine) == [["mine"]] and (tmp_path / "mine/thesis.txt").exists()


def test_help_names_the_environment(tmp_path: Path) -> None:
    said = Machine(tmp_path).make("help").stdout
    assert "source .venv/bin/activate" in said and sys.prefix not in said
    assert "--config full" in said


def test_an_unknown_target_is_answered_with_help(tmp_path: Path) -> None:
    done = Machine(tmp_path).make("finetun")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "there is no target finetun: make help lists them" in done.stderr


def test_pip_is_not_silent_and_its_failure_is_makes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = """Collecting torch>=2.11
  Downloading torch-2.13.0-cp311-none-manylinux_2_28_x86_64.whl.metadata (30 kB)
Downloading torch-2.13.0-cp311-none-manylinux_2_28_x86_64.whl (899.7 MB)
   ---------------------------------------- 899.7/899.7 MB 9.1 MB/s eta 0:00:00
  Using cached https://an.index/x/fire_0-0.7.1-py3-none-any.whl (115 kB)
Processing ./wheels/scipy-1.17.1-cp311-cp311-manylinux_2_27_x86_64.whl (from llama)
Requirement already satisfied: numpy in ./.venv/lib
Installing collected packages: fire, torch, scipy
Successfully installed fire-0.7.1"""
    monkeypatch.setenv("PIP_SAYS", said)
    python = f"PYTHON={machine.folder / 'python3.11.7'}"
    done = machine.make("finetune", "DATASET=my.csv", "MODEL=m", "OUTPUT=o", "VENV=v", python)
    shown = done.stdout.split("torch: some minutes\n")[1].splitlines()
    expected = ["torch 2.13.0 (899.7 MB)", "fire_0 0.7.1 (115 kB)", "scipy 1.17.1"]
    once = [*expected, "installing them"]
    assert [line.strip() for line in shown[:8]] == once + once  # pip itself, then the package
    assert "finetuning.py" not in done.stdout  # the command is 250 characters long
    assert max(map(len, done.stdout.splitlines())) <= 80
    monkeypatch.setenv("PIP_EXITS", "1")
    assert machine.make("install", "VENV=another", python).returncode == 2
