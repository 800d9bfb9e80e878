"""Whatever preflight suggests where a run does not fit is planned to fit, and is not refused."""

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from test_memory_rules import model_folder

from llama_recipes_local import launch
from llama_recipes_local.planning.cards import Card, card
from llama_recipes_local.planning.search import outcome
from llama_recipes_local.preflight import memory_rules
from llama_recipes_local.preflight.checks_by_flags import FLAG_CHECKS
from llama_recipes_local.preflight.group_sizes import group_sizes
from llama_recipes_local.run.resolution import resolve

FAST = {"use_fast_kernels": "True"}
LORA = {"use_peft": "True", "target_modules": "all-linear", "r": "16"}
FOUR_BIT = {"quantization": "4bit", "quant_type": "nf4", "use_double_quant": "True"}
METHODS: tuple[dict[str, str], ...] = (
    {},
    FAST,
    LORA,
    LORA | FAST,
    LORA | FAST | FOUR_BIT,
    LORA | FAST | {"quantization": "8bit"},
    LORA | FAST | {"fp8": "True"},
    LORA | FAST | {"use_dora": "True"},
    FAST | {"optimizer": "paged_adamw_8bit"},
    FAST | {"train_only": "last:4"},
    {"use_peft": "True", "peft_method": "prefix"},
)
SIZES: tuple[dict[str, str], ...] = (
    {},
    {"batch_size_training": "8", "gradient_checkpointing": "True"},
    {"batch_size_training": "6", "activation_policy": "keep"},
    {"context_length": "2048", "batch_size_training": "32", "gradient_accumulation_steps": "2"},
)
MODELS = ("smollm2-1.7b", "llama-3.1-8b", "llama-2-13b", "llama-3.1-70b")
CARDS = (card(8), card(24, "4090"), card(80, "H100"))


def grid(gpus: int) -> list[tuple[Card, dict[str, str]]]:
    """Return cards and flags; those of recomputation have other names with FSDP."""
    found = []
    for on, method, size in itertools.product(CARDS, METHODS, SIZES):
        flags = {**method, **size}
        if gpus > 1:
            flags["enable_fsdp"] = "True"
            whole = {"8bit", "True"} & {flags.get("quantization"), flags.get("fp8")}
            if whole or "optimizer" in flags:
                flags["sharding_strategy"] = "NO_SHARD"
            flags.pop("gradient_checkpointing", None)
        found.append((on, flags))
    return found


def fixed(flags: dict[str, str], fix: str) -> dict[str, str]:
    """Return flags as a fix has them: with others, and without one that it names."""
    without = re.search(r", without --(\w+)", fix)
    words = shlex.split(re.sub(r", without --\w+", "", fix).partition(" (needs")[0])
    assert len(words) % 2 == 0, fix
    kept = {name: value for name, value in flags.items() if not without or name != without[1]}
    return kept | dict(zip((word[2:] for word in words[::2]), words[1::2], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [1, 4])
@pytest.mark.parametrize("model", MODELS)
def test_each_suggestion_fits(
    model: str, gpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "world_size", lambda: gpus)
    monkeypatch.setattr(launch, "ranks_of_host", lambda: gpus)
    folder: dict[str, Any] = {"model_name": str(model_folder(model, tmp_path))}
    suggested = refused = 0
    for on, flags in grid(gpus):
        monkeypatch.setattr(memory_rules, "this_card", lambda on=on: on)
        problems = memory_rules.check_memory(resolve(folder | flags))
        refused += len(problems)
        for problem in problems:
            if not problem.fix.startswith("--"):
                assert "plan --model_name" in problem.fix
                continue
            suggested += 1
            run = resolve(folder | fixed(flags, problem.fix))
            setting = memory_rules.asked_setting(run)
            assert setting is not None
            assert outcome(setting, on).fits, (flags, on.name, problem.fix)
            asked = memory_rules.asked_setting(resolve(folder | flags))
            assert asked is not None
            assert setting.global_batch == asked.global_batch
            wrong = [each for check in FLAG_CHECKS for each in check(run)]
            assert not wrong + group_sizes(run, gpus), (flags, problem.fix)
    assert refused >= 10
    assert suggested or model == "llama-3.1-70b"
