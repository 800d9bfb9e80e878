"""Trained and merged folders are whole: plain transformers loads them and says what we say."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from generate_command import generate

from llama_recipes_local import cli, finetuning

pytestmark = pytest.mark.slow

PROMPT = "She go to school and"
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def base(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a chat template, two tokens that end a text, and a licence."""
    folder = tmp_path_factory.mktemp("models") / "instruct"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "LICENSE").write_text("free")
    path = folder / "generation_config.json"
    change = {"eos_token_id": [1, 5], "temperature": 0.5, "do_sample": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return folder


@pytest.fixture(scope="module")
def trained(
    base: Path, tiny_run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Path]]:
    """A model trained whole, an adapter, and what it was merged into, under a narrow umask."""
    folder = tmp_path_factory.mktemp("runs")
    run = tiny_run | {"model_name": str(base), "max_train_step": 3, "context_length": 128}
    before = os.umask(0o027)
    finetuning.main(**run, lr=1e-2, output_dir=str(folder / "whole"), save_steps=3)
    finetuning.main(**run, lr=1e-1, use_peft=True, output_dir=str(folder / "adapter"))
    words = ["--adapter", str(folder / "adapter"), "--out", str(folder / "merged")]
    assert cli.main(["merge", *words]) == 0
    os.umask(before)
    yield {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["whole", "merged"])
def test_plain_transformers_generates_what_generate_does(
    kind: str, trained: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained[kind])
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        trained[kind], dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values()), info
    prompt = tokenizer(PROMPT, return_tensors="pt")
    ids = model.generate(**prompt, do_sample=False, max_new_tokens=30)
    theirs = tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    words = ("--model_name", trained[kind], "--raw", "--prompt", PROMPT, "--max_new_tokens", 30)
    ours = generate(capsys, *words)
    assert theirs.strip() and ours == theirs + "\n"


@pytest.mark.parametrize("kind", ["whole", "merged"])
def test_all_that_belongs_to_a_model_is_with_it(
    kind: str, base: Path, trained: dict[str, Path]
) -> None:
    for path in base.iterdir():
        if path.suffix != ".safetensors" and path.name != "config.json":
            assert (trained[kind] / path.name).read_bytes() == path.read_bytes(), path.name
    assert json.loads((trained[kind] / "config.json").read_text())["use_cache"] is True


def test_use_cache_is_the_bases(
    base: Path, tiny_run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the base has no generation configuration, or keeps none itself."""
    own = shutil.copytree(base, tmp_path / "base")
    (own / "generation_config.json").unlink()
    config = json.loads((own / "config.json").read_text())
    run = tiny_run | {"model_name": str(own), "max_train_step": 1, "context_length": 128}
    for given, saved in ((None, True), (False, False)):
        config["use_cache"] = given
        kept = {name: value for name, value in config.items() if value is not None}
        (own / "config.json").write_text(json.dumps(kept))
        out = tmp_path / str(given)
        finetuning.main(**run, output_dir=str(out))
        for name in ("config.json", "generation_config.json"):
            assert json.loads((out / name).read_text()).get("use_cache", True) is saved, name


def test_files_follow_the_umask(trained: dict[str, Path]) -> None:
    """safetensors writes files that only their owner may read."""
    modes = {
        path: path.stat().st_mode & 0o777
        for folder in trained.values()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert {"model.safetensors", "adapter_model.safetensors"} < {path.name for path in modes}
    assert any("checkpoint-" in path.parent.name for path in modes)
    assert {path for path, mode in modes.items() if mode != 0o640} == set()
