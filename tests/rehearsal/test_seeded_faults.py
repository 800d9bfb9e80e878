"""A rehearsal finds what is wrong with data, flags, template, model, disk and environment."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import extras
from llama_recipes_local.finetuning import main
from llama_recipes_local.rehearsal import beginning
from llama_recipes_local.storage import open_files

CHAT = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
PAIRS = [{"prompt": f"Add {n}.", "completion": f"It is {n + 1}."} for n in range(8)]
USER, ANSWER = {"role": "user", "content": "Go."}, {"role": "assistant", "content": "Gone."}


@dataclass
class Fault:
    """A run that has one fault; the folder has a sound model and sound data before.

    Attributes:
        said: what must be in the message.
        make: makes the fault in the folder.
        flags: that are given in addition.
    """

    said: str
    make: Callable[[Path], object] = lambda folder: None
    flags: dict[str, Any] = field(default_factory=dict)


def rows(*records: object) -> Callable[[Path], object]:
    return lambda folder: (folder / "data.jsonl").write_text("\n".join(map(json.dumps, records)))


def text(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "data.jsonl").write_bytes(content)


def template(source: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        rows(*[{"messages": [USER, ANSWER]}] * 8)(folder)
        (folder / "model" / "chat_template.jinja").write_text(source)

    return make


def model_file(name: str, change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: change(folder / "model" / name)


def configured(**values: object) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        path = folder / "model" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return make


def pickled(folder: Path) -> None:
    (folder / "model/model.safetensors").rename(folder / "model/pytorch_model.bin")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 10\n"
GBK = '{"prompt": "把句子改对", "completion": "改好了"}\n'.encode("gbk") * 8
STRICT = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('a user begins') }}{% endif %}"

FAULTS = {
    "data: an empty file": Fault("data.jsonl", text(b"")),
    "data: answers that are blank": Fault(
        "blank", rows(*[{"prompt": "Go.", "completion": " "}] * 8)
    ),
    "data: unknown columns": Fault("columns", rows(*[{"alpha": "a", "beta": "b"}] * 8)),
    "data: GBK": Fault("gb18030", text(GBK)),
    "data: roles in the wrong order": Fault(
        "a user begins", rows(*[{"messages": [ANSWER, USER]}] * 8), {"_template": STRICT + CHAT}
    ),
    "data: nothing to train on": Fault(
        "label", rows(*[{"messages": [USER, ANSWER | {"weight": 0}]}] * 8), {"_template": CHAT}
    ),
    "data: a key twice": Fault(
        "'prompt'", text(b'{"prompt": "a", "prompt": "b", "completion": "c"}\n' * 8)
    ),
    "data: a row that is cut off": Fault(
        "line 2 of", text(b'{"prompt": "a", "completion": "b"}\n{"prompt": "a", "compl')
    ),
    "data: a number for a text": Fault("7", rows(*PAIRS, {"prompt": "a", "completion": 7})),
    "data: no such file": Fault("data.jsonl", lambda folder: (folder / "data.jsonl").unlink()),
    "flags: a name mistyped": Fault("--lora_alpha", flags={"lora_alhpa": 8}),
    "flags: a rate that is no number": Fault("lr", flags={"lr": "nan"}),
    "flags: no rows": Fault("batch_size_training", flags={"batch_size_training": 0}),
    "flags: layers that the model does not have": Fault(
        "c_attn", flags={"target_modules": "c_attn"}
    ),
    "flags: two half precisions": Fault("--pure_bf16", flags={"use_fp16": True, "pure_bf16": True}),
    "flags: a warm-up longer than the run": Fault(
        "--warmup_steps", flags={"warmup_steps": 10, "max_train_step": 5}
    ),
    "flags: 4 bits that are trained": Fault(
        "--use_peft", flags={"quantization": "4bit", "use_peft": False}
    ),
    "flags: FSDP without torchrun": Fault("torchrun", flags={"enable_fsdp": True}),
    "flags: rows longer than the model's": Fault("512", flags={"context_length": 4096}),
    "template: missing": Fault("template", rows(*[{"messages": [USER, ANSWER]}] * 8)),
    "template: raises": Fault("not today", template("{{ raise_exception('not today') }}")),
    "template: never ends": Fault(
        "template", template("{% for i in range(10**9) %}{% endfor %}" + CHAT)
    ),
    "template: without an end": Fault("stops at", template(CHAT.replace(" + eos_token", ""))),
    "model: weights that are cut off": Fault(
        "model.safetensors",
        model_file("model.safetensors", lambda path: os.truncate(path, 10_000)),
    ),
    "model: a pointer of Git LFS": Fault(
        "Git LFS", model_file("model.safetensors", lambda path: path.write_bytes(POINTER))
    ),
    "model: pickled weights alone": Fault("pytorch_model.bin", pickled),
    "model: no tokenizer": Fault(
        "tokenizer", model_file("tokenizer.json", lambda path: path.unlink())
    ),
    "model: other layers than its weights": Fault(
        "num_hidden_layers", configured(num_hidden_layers=3)
    ),
    "disk: a file for a folder": Fault(
        "is a file", lambda folder: (folder / "file").touch(), {"output_dir": "file/out"}
    ),
    "disk: where nothing can be made": Fault("/proc", flags={"output_dir": "/proc/1/out"}),
    "disk: an earlier result": Fault(
        "--overwrite_output_dir",
        lambda folder: shutil.copytree(folder / "model", folder / "out"),
    ),
    "environment: a rank's number alone": Fault("RANK=1", flags={"_environment": {"RANK": "1"}}),
    "environment: few files": Fault("ulimit -n", flags={"_files": 64, "num_workers_dataloader": 4}),
    "environment: a package that is missing": Fault(
        "bitsandbytes", flags={"quantization": "4bit", "_missing": "bitsandbytes"}
    ),
}


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a sound model and sound data; a process for stages is an error."""
    shutil.copytree(tiny_model, tmp_path / "model")
    rows(*PAIRS)(tmp_path)
    monkeypatch.chdir(tmp_path)

    def too_late(script: object) -> str:
        pytest.fail("the fault was not found before the stages")

    monkeypatch.setattr(beginning, "_perform", too_late)
    return tmp_path


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_before_anything_is_trained(
    name: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fault = FAULTS[name]
    flags = {"model_name": "model", "dataset": "data.jsonl", "output_dir": "out"}
    flags |= {"use_peft": True, "context_length": 128, **fault.flags}
    if source := flags.pop("_template", ""):
        (folder / "model" / "chat_template.jinja").write_text(str(source))
    for variable, value in flags.pop("_environment", {}).items():
        monkeypatch.setenv(variable, value)
    if files := flags.pop("_files", 0):
        monkeypatch.setattr(open_files, "most", lambda: files)
    if missing := flags.pop("_missing", ""):
        monkeypatch.setattr(extras, "find_spec", lambda name: None if name == missing else name)
    fault.make(folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(rehearse=True, **flags)
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert fault.said in said
    assert said.count("\n   fix: ") == said.count("\n   why: ") <= 2
    assert sorted(folder.rglob("*")) == before
