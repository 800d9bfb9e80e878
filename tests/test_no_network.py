"""Training, saving and reloading reach for no network, with nothing set in the environment."""

import subprocess
import sys
from pathlib import Path

import pytest

PRELUDE = """
import socket

def deny(name, allowed=lambda *arguments: False):
    original = getattr(socket.socket, name, None) or getattr(socket, name)

    def denied(*arguments, **options):
        if allowed(*arguments):
            return original(*arguments, **options)
        with open({record!r}, "a") as record:
            print(name, arguments, file=record)
        raise OSError("the network is denied in this test")

    setattr(socket.socket if hasattr(socket.socket, name) else socket, name, denied)

def inside_this_machine(connection, *arguments):
    return connection.family == socket.AF_UNIX

deny("connect", inside_this_machine)
deny("connect_ex", inside_this_machine)
deny("sendto", inside_this_machine)
deny("getaddrinfo")
deny("gethostbyname")
"""
PROGRAM = """
import os
assert not [name for name in os.environ if "OFFLINE" in name], os.environ

from llama_recipes_local.finetuning import main

main(
    model_name={model!r},
    data_root={data!r},
    output_dir={output!r},
    dataset="grammar_dataset",
    use_peft=True,
    context_length=256,
    num_epochs=1,
    max_train_step=2,
    max_eval_step=2,
)

from llama_recipes_local.adapters import PeftModel
from llama_recipes_local.models import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({model!r})
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({model!r}), {output!r})
ids = tokenizer("She go to school.", return_tensors="pt")["input_ids"]
longer = model.generate(input_ids=ids, min_new_tokens=3, max_new_tokens=3)
print("generated", longer.shape[1] - ids.shape[1])
model.save_pretrained({output!r} + "/again")
"""
PROOF = """
import socket, urllib.request
for attempt in (
    lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
    lambda: socket.socket().connect(("127.0.0.1", 9)),
    lambda: socket.socket().connect_ex(("127.0.0.1", 9)),
    lambda: urllib.request.urlopen("http://localhost:9", timeout=1),
):
    try:
        attempt()
    except OSError as error:
        assert "denied" in str(error), error
    else:
        raise AssertionError("an attempt was let through")
"""
LOOK_UPS = """
import datasets, huggingface_hub, transformers

for look_up in (
    lambda: transformers.AutoConfig.from_pretrained("org/name"),
    lambda: transformers.AutoTokenizer.from_pretrained("org/name"),
    lambda: huggingface_hub.hf_hub_download("org/name", "config.json"),
    lambda: huggingface_hub.file_exists("org/name", "config.json"),
    lambda: datasets.load_dataset("org/name"),
):
    try:
        look_up()
    except Exception as error:
        print("refused", type(error).__name__)
"""


def run_denied(
    program: str, folder: Path, environment: dict[str, str]
) -> tuple["subprocess.CompletedProcess[str]", list[str]]:
    """Run a program without sockets; return how it ended and what it tried to reach."""
    record = folder / "attempts.txt"
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE.format(record=str(record)) + program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    return done, record.read_text().splitlines() if record.is_file() else []


def test_the_denial_sees_every_attempt(tmp_path: Path, environment: dict[str, str]) -> None:
    done, attempts = run_denied(PROOF, tmp_path, environment)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in attempts] == [
        "getaddrinfo",
        "connect",
        "connect_ex",
        "getaddrinfo",
    ]


@pytest.mark.parametrize("first", ["", "import datasets, huggingface_hub, transformers, peft"])
def test_a_look_up_on_the_hub_is_refused_unasked(
    first: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Also where a notebook imported the libraries before this package."""
    program = f"{first}\nimport llama_recipes_local\n{LOOK_UPS}"
    done, attempts = run_denied(program, tmp_path, environment)
    assert done.stdout.count("refused") == 5, done.stdout + done.stderr
    assert attempts == []


def test_training_saving_and_reloading(
    tiny_model: Path, grammar_data: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    output = tmp_path / "out"
    program = PROGRAM.format(model=str(tiny_model), data=str(grammar_data), output=str(output))
    done, attempts = run_denied(program, tmp_path, environment)
    assert done.returncode == 0, done.stderr
    assert attempts == []
    assert "generated 3" in done.stdout
    assert (output / "adapter_model.safetensors").is_file()
    assert (output / "again" / "adapter_model.safetensors").is_file()
