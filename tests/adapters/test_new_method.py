"""A method is one module and one line of the registry: all that enumerates methods finds it there.

The method is PEFT's IA3, declared in a module outside the package.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from llama_recipes_local import configs, finetuning
from llama_recipes_local.adapters.registry import METHODS
from llama_recipes_local.errors import UsageError
from llama_recipes_local.model_checkpointing.checkpoint_handler import save_peft_checkpoint
from llama_recipes_local.preflight.checks import METHOD, find_problems
from llama_recipes_local.preflight.flags import check_flags
from llama_recipes_local.preflight.help import help_text
from llama_recipes_local.run.resolution import resolve

MODULE = '''
from dataclasses import dataclass, field

from llama_recipes_local.adapters.base import AdapterMethod
from llama_recipes_local.errors import Problem


@dataclass
class ia3_config:
    """IA3 (2205.05638): factors on keys, values and the hidden layer of the MLP."""

    task_type: str = "CAUSAL_LM"
    """PEFT's name for the task."""

    target_modules: list[str] = field(default_factory=lambda: ["k_proj", "v_proj", "down_proj"])
    """Layers that get factors."""

    feedforward_modules: list[str] = field(default_factory=lambda: ["down_proj"])
    """Those of them whose input is scaled."""


def check(run, ia3, model, folder):
    if set(ia3.feedforward_modules) <= set(ia3.target_modules):
        return []
    return [Problem("--feedforward_modules", f"not in --target_modules of {folder.name}", "add")]


METHOD = AdapterMethod(
    name="ia3",
    title="IA3",
    config=ia3_config,
    peft_type="IA3",
    check=check,
)
'''
FLAGS: dict[str, Any] = {"use_peft": True, "peft_method": "ia3"}


@pytest.fixture(scope="module")
def method(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("module")
    (folder / "ia3_for_a_test.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(folder)
        return importlib.import_module("ia3_for_a_test").METHOD


@pytest.fixture(autouse=True)
def _registered(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds the line to the registry."""
    monkeypatch.setitem(METHODS, method.name, method)


def test_its_flags_are_known_and_typed() -> None:
    flags = {"feedforward_modules": "down_proj", "ia3_config.target_modules": "k_proj,down_proj"}
    assert check_flags(flags) == (flags, [])
    run = resolve(FLAGS | flags)
    assert run.peft == configs.ia3_config(target_modules=["k_proj", "down_proj"])  # type: ignore[attr-defined]


def test_help_describes_it() -> None:
    text = help_text()
    assert "\nIA3 (--use_peft --peft_method ia3):\n" in text
    flag = "\n  --feedforward_modules (down_proj)\n"
    assert f"{flag}      Those of them whose input is scaled.\n" in text


def test_preflight_takes_it_and_runs_its_check(tiny_model: Path) -> None:
    flags = FLAGS | {"model_name": str(tiny_model)}
    assert find_problems(resolve(flags), METHOD) == []
    (problem,) = find_problems(resolve(flags | {"feedforward_modules": "up_proj"}), METHOD)
    assert problem.why == "not in --target_modules of tiny-llama"


def test_its_flags_are_refused_with_another_method(tiny_model: Path) -> None:
    flags = {"use_peft": True, "feedforward_modules": "down_proj", "model_name": str(tiny_model)}
    (problem,) = find_problems(resolve(flags), METHOD)
    assert problem.what == "--feedforward_modules with --peft_method lora"
    assert "--peft_method ia3" in problem.fix


def test_an_unknown_method_is_answered_with_its_name_too(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        finetuning.main(use_peft=True, peft_method="iaa3", model_name=str(tiny_model))
    assert "did you mean --peft_method ia3?" in capsys.readouterr().err


def test_it_trains_saves_and_continues(
    tiny_model: Path, grammar_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = FLAGS | {
        "model_name": str(tiny_model),
        "dataset": "grammar_dataset",
        "data_root": str(grammar_data),
        "context_length": 128,
        "batch_size_training": 2,
        "max_train_step": 2,
        "num_epochs": 1,
        "lr": 0.01,
        "run_validation": False,
        "output_dir": str(tmp_path / "first"),
    }
    monkeypatch.chdir(tmp_path)
    finetuning.main(**flags)
    saved = json.loads((tmp_path / "first/adapter_config.json").read_text())
    assert (saved["peft_type"], saved["feedforward_modules"]) == ("IA3", ["down_proj"])
    first = load_file(tmp_path / "first/adapter_model.safetensors")
    assert len(first) == 6 and all((factors != 1).any() for factors in first.values())
    again = {"from_peft_checkpoint": str(tmp_path / "first"), "output_dir": str(tmp_path / "next")}
    finetuning.main(**flags | again)
    continued = load_file(tmp_path / "next/adapter_model.safetensors")
    assert all((continued[name] - first[name]).abs().max() > 0 for name in first)


@pytest.mark.parametrize(
    ("peft_type", "untrained"),
    [("VERA", "base_model.vera_A"), ("DELORA", "delora_w_norm"), ("VBLORA", "vector_bank")],
)
def test_tensors_that_are_not_trained_are_saved_with_it(
    peft_type: str, untrained: str, tiny_model: Path, tmp_path: Path
) -> None:
    """And those that layers share, by the one name that PEFT loads."""
    settings: dict[str, Any] = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "o_proj"]}
    settings |= {"num_vectors": 16, "vector_length": 32} if peft_type == "VBLORA" else {}

    def model() -> Any:
        return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)

    adapted = peft.get_peft_model(model(), peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft_type](**settings))
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter += 0.1 * parameter.requires_grad
    save_peft_checkpoint(adapted, tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert any(untrained in name for name in saved)
    assert saved.keys() == peft.get_peft_model_state_dict(adapted).keys()
    loaded = peft.PeftModel.from_pretrained(model(), tmp_path)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert loaded.eval()(ids).logits.equal(adapted.eval()(ids).logits)


def test_merge_refuses_it(tmp_path: Path) -> None:
    from llama_recipes_local.commands.merge.adapter import read_adapter

    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match="is of type IA3, which cannot be merged"):
        read_adapter(tmp_path)
