"""What a configuration says and nothing reads is named by each command that reads the folder."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import transformers

from llama_recipes_local import cli
from llama_recipes_local.adapters.unread_keys import unread_keys
from llama_recipes_local.answers.model_source import find_source
from llama_recipes_local.preflight.unread_settings import unread
from llama_recipes_local.run.resolution import resolve


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def folders(tiny_model: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A model with code of its own, and an adapter of a PEFT that is not installed."""
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    model.save_pretrained(base)
    transformers.AutoTokenizer.from_pretrained(tiny_model).save_pretrained(base)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(model, config).save_pretrained(str(adapter))
    change(adapter / "adapter_config.json", new_scale=2.0, base_model_name_or_path=str(base))
    change(base / "config.json", auto_map={"AutoModelForCausalLM": "own.Model"})
    return base, adapter


def test_every_command_names_them(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, adapter = folders
    lines = unread_keys(base, adapter)
    assert "auto_map" in lines[0] and "not read: new_scale in adapter_config.json" in lines[1]
    assert cli.main(["merge", "--adapter", str(adapter), "--out", str(tmp_path / "merged")]) == 0
    assert "\n".join(lines) in capsys.readouterr().out
    words = ["export", "--adapter", str(adapter), "--format", "gguf-lora"]
    assert cli.main([*words, "--out", str(tmp_path / "lora")]) == 0
    assert "\n".join(lines) in capsys.readouterr().out
    words = ["export", "--model_name", str(base), "--type", "f32"]
    assert cli.main([*words, "--out", str(tmp_path / "gguf")]) == 0
    assert lines[0] in (printed := capsys.readouterr().out) and lines[1] not in printed
    find_source(adapter)
    assert "\n".join(lines) in capsys.readouterr().err
    flags = {"model_name": str(base), "use_peft": True, "from_peft_checkpoint": str(adapter)}
    assert "\n".join(lines) in unread(resolve(flags))


def test_what_a_newer_peft_leaves_off_is_not_named(folders: tuple[Path, Path]) -> None:
    base, adapter = folders
    change(adapter / "adapter_config.json", new_scale=None, new_switch=False, new_names=[])
    change(base / "config.json", auto_map=None)
    assert unread_keys(base, adapter) == []


@pytest.mark.parametrize("kind", ["NEW", ["LORA"]])
def test_keys_of_an_unknown_type_are_not_named(folders: tuple[Path, Path], kind: Any) -> None:
    """The type is refused where it is used."""
    base, adapter = folders
    change(adapter / "adapter_config.json", peft_type=kind)
    assert len(unread_keys(base, adapter)) == 1  # of the model


def test_a_key_makes_no_line_of_its_own(folders: tuple[Path, Path]) -> None:
    base, adapter = folders
    change(adapter / "adapter_config.json", **{"a\n--> all is well": 1})
    assert all("\n" not in line for line in unread_keys(base, adapter))
