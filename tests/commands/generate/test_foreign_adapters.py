"""Adapters that other programs saved, with the tokenizer that they were trained with or without."""

import json
import shutil
from pathlib import Path

import pytest
from generate_command import generate, refused
from safetensors.torch import load_file, save_file
from test_generate import SENTENCE, expected

from llama_recipes_local import cli

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
ASKED = f"user: {SENTENCE}\nassistant: "


@pytest.fixture
def foreign(adapter: Path, tiny_model: Path, tmp_path: Path) -> Path:
    """An adapter with a tokenizer and a chat template beside it, as Unsloth and TRL save it."""
    folder = tmp_path / "foreign"
    shutil.copytree(adapter, folder)
    for path in tiny_model.glob("tokenizer*"):
        shutil.copy(path, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def test_the_chat_template_beside_an_adapter_is_used(
    foreign: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--adapter", foreign, "--prompt", SENTENCE, "--max_new_tokens", 8)
    assert generate(capsys, *words) == expected(tiny_model, foreign, ASKED, 8) + "\n"
    raw = expected(tiny_model, foreign, SENTENCE, 8) + "\n"
    assert generate(capsys, *words, "--raw") == raw
    # of a run of this package's own, which writes how its prompts are
    for name in ("run_config.json", "custody.json"):
        (foreign / name).write_text(json.dumps({}))
        assert generate(capsys, *words) == raw
        (foreign / name).unlink()


def test_names_of_a_wrapped_model_are_shown_beside_the_missing_ones(
    foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = foreign / "adapter_model.safetensors"
    tensors = load_file(path)
    own = "base_model.model."
    save_file({k.replace(own, f"{own}_orig_mod."): v for k, v in tensors.items()}, path)
    error = refused(capsys, "--adapter", foreign, "--prompt", "x")
    assert f"missing tensors: {min(tensors)}" in error
    assert "unexpected tensors: base_model.model._orig_mod.model.layers.0" in error


def test_torchtunes_configuration_is_enough(
    foreign: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = json.loads((foreign / "adapter_config.json").read_text())
    few = {name: saved[name] for name in ("r", "lora_alpha", "target_modules", "peft_type")}
    (foreign / "adapter_config.json").write_text(json.dumps(few))
    words = ("--adapter", foreign, "--model_name", tiny_model, "--allow_other_base")
    printed = generate(capsys, *words, "--prompt", SENTENCE, "--max_new_tokens", 8)
    assert printed == expected(tiny_model, foreign, ASKED, 8) + "\n"


def test_the_models_own_chat_template_is_offered(
    adapter: Path, foreign: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "--adapter", adapter, "--tokenizer_name", foreign, "--prompt", SENTENCE]
    capsys.readouterr()
    assert cli.main([*map(str, words), "--max_new_tokens", "8"]) == 0
    printed = capsys.readouterr()
    assert printed.out == expected(tiny_model, adapter, SENTENCE, 8) + "\n"
    assert "(--template tokenizer: put into the model's chat template)" in printed.err
