"""What is incompatible with each rank reading only its shard of the weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from llama_recipes_local.preflight.low_memory_rules import check_low_memory, check_low_memory_model
from llama_recipes_local.run.resolution import resolve

FSDP = {"low_cpu_fsdp": True, "enable_fsdp": True}


def problems_of(folder: Path, **flags: Any) -> list[str]:
    run = resolve({"model_name": str(folder), **flags})
    problems = check_low_memory(run) + check_low_memory_model(run)
    assert all("leave --low_cpu_fsdp out" in problem.fix for problem in problems)
    return [problem.what for problem in problems]


@pytest.mark.parametrize(
    "flags",
    [
        {"quantization": "4bit", "use_peft": True},
        FSDP,
        FSDP | {"use_peft": True, "fsdp_cpu_offload": True, "init_lora_weights": "gaussian"},
        FSDP | {"use_peft": True, "peft_method": "llama_adapter"},
        FSDP | {"train_only": "lm_head", "sharding_strategy": "NO_SHARD"},
        FSDP | {"fp8": True},
    ],
)
def test_compatible_settings_have_no_problem(tiny_model: Path, flags: dict[str, Any]) -> None:
    assert problems_of(tiny_model, **flags) == []


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ({"low_cpu_fsdp": True}, "--low_cpu_fsdp without --enable_fsdp"),
        (FSDP | {"quantization": "4bit"}, "--low_cpu_fsdp with --quantization 4bit"),
        (FSDP | {"use_peft": True, "use_dora": True}, "--low_cpu_fsdp with --use_dora"),
        (
            FSDP | {"use_peft": True, "init_lora_weights": "pissa_niter_16"},
            "--low_cpu_fsdp with --init_lora_weights pissa",
        ),
        (FSDP | {"top_layers": 2}, "--low_cpu_fsdp with --top_layers"),
        (FSDP | {"fp8": True, "freeze_layers": True}, "--low_cpu_fsdp with --fp8"),
    ],
)
def test_incompatible_settings(tiny_model: Path, flags: dict[str, Any], what: str) -> None:
    assert problems_of(tiny_model, **flags) == [what]


def test_resized_embeddings_and_vision_models(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    added = tokenizer.add_tokens([f"<new {number}>" for number in range(600)])
    tokenizer.save_pretrained(folder)
    tokens = len(tokenizer)
    assert added and tokens > 1000
    expected = f"--low_cpu_fsdp with a tokenizer of {tokens} tokens and a model of 1000"
    assert problems_of(folder, **FSDP) == [expected]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mllama"}))
    assert problems_of(folder, **FSDP) == ["--low_cpu_fsdp with a vision model"]
