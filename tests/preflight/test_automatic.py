"""With --use_fast_kernels what is not named is chosen, and printed with its reason."""

from pathlib import Path
from typing import Any

import pytest
from test_memory_rules import model_folder

from llama_recipes_local import launch
from llama_recipes_local.planning.cards import card
from llama_recipes_local.preflight import all_problems, automatic, memory_rules
from llama_recipes_local.run.resolution import resolve

GUIDE = {
    "enable_fsdp": "True",
    "use_peft": "True",
    "use_fast_kernels": "True",
    "batch_size_training": "2",
    "gradient_accumulation_steps": "2",
}
NO_SHARD, KEEP = {"sharding_strategy": "NO_SHARD"}, {"activation_policy": "keep"}


@pytest.fixture
def choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what is chosen for a model on some GPUs of a host."""

    def of(name: str, gpus: int, memory: int, **flags: str) -> dict[str, object]:
        monkeypatch.setattr(automatic, "this_card", lambda: card(memory))
        monkeypatch.setattr(memory_rules, "this_card", lambda: card(memory))
        monkeypatch.setattr(launch, "world_size", lambda: gpus)
        monkeypatch.setattr(launch, "ranks_of_host", lambda: gpus)
        run = resolve({"model_name": str(model_folder(name, tmp_path)), **flags})
        chosen, why = automatic.automatic(run)
        assert bool(chosen) == bool(why)
        for flag in chosen:
            assert f"--{flag}" in why
            assert flag not in run.given
        after = resolve({**chosen, **run.flags})
        asked = memory_rules.asked_setting(after)
        before = memory_rules.asked_setting(run)
        assert asked is not None
        assert before is not None
        assert asked.global_batch == before.global_batch
        assert memory_rules.check_memory(after) == [] or not chosen
        return chosen

    return of


def test_the_guides_command_is_replicated_and_keeps_its_activations(choose: Any) -> None:
    assert choose("llama-2-7b", 4, 80, **GUIDE) == NO_SHARD | KEEP
    # links of such cards are slow: weights are gathered once a micro-batch instead of twice
    assert choose("llama-2-7b", 4, 24, **GUIDE) == {"sharding_strategy": "SHARD_GRAD_OP"}
    assert choose("llama-2-7b", 4, 12, **GUIDE) == {}


def test_what_is_named_is_done(choose: Any) -> None:
    sharded = {**GUIDE, "sharding_strategy": "FULL_SHARD"}
    assert choose("llama-2-7b", 4, 80, **sharded) == KEEP
    recomputed = {**GUIDE, "fsdp_activation_checkpointing": "True"}
    assert choose("llama-2-7b", 4, 80, **recomputed) == NO_SHARD
    assert choose("llama-2-7b", 4, 80, **sharded, activation_policy="full") == {}


def test_one_gpu_recomputes_what_does_not_fit_and_then_halves_rows(choose: Any) -> None:
    lora = {"use_peft": "True", "use_fast_kernels": "True", "target_modules": "all-linear"}
    assert choose("llama-2-7b", 1, 80, **lora, batch_size_training="2") == {}
    assert choose("llama-2-7b", 1, 24, **lora) == {"gradient_checkpointing": True}
    long = {**lora, "context_length": "16384"}
    found = choose("llama-3.1-8b", 1, 24, **long)
    assert found["gradient_checkpointing"] is True
    assert int(found["batch_size_training"]) * int(found["gradient_accumulation_steps"]) == 4


def test_rows_that_fit_are_kept_even_if_more_were_faster(choose: Any) -> None:
    # another micro-batch is another run to resume
    small = {"use_peft": "True", "use_fast_kernels": "True", "gradient_accumulation_steps": "8"}
    assert choose("smollm2-135m", 1, 80, **small, context_length="512") == {}


def test_a_run_does_what_was_chosen_and_says_so(
    tiny_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = {**tiny_run, "context_length": 64, "output_dir": str(tmp_path / "out")}
    chosen = {"activation_policy": "full", "batch_size_training": 2}
    monkeypatch.setattr(all_problems, "automatic", lambda run: (chosen, "because"))
    run = all_problems.preflight((), {**flags, "batch_size_training": 3, "config": "first_run"})
    assert run.choices == "because"
    assert run.recipe
    assert run.train.gradient_checkpointing
    assert run.train.batch_size_training == 3  # a flag overrides a choice
    monkeypatch.setattr(all_problems, "automatic", lambda run: ({}, ""))
    assert all_problems.preflight((), flags).choices == ""


@pytest.mark.parametrize(
    "flags",
    [
        {"use_fast_kernels": "False"},
        {"batching_strategy": "padding"},
        {"fsdp_cpu_offload": "True"},
        {"peft_method": "prefix"},
    ],
)
def test_nothing_is_chosen_where_the_arithmetic_is_less_sure(
    choose: Any, flags: dict[str, str]
) -> None:
    assert choose("llama-2-7b", 4, 80, **{**GUIDE, **flags}) == {}


def test_all_weights_stay_sharded(choose: Any) -> None:
    full = {**GUIDE, "use_peft": "False", "batch_size_training": "1"}
    assert "sharding_strategy" not in choose("llama-2-7b", 8, 80, **full)


def test_8_bits_and_fp8_are_never_sharded(choose: Any) -> None:
    for flags in ({"quantization": "8bit"}, {"fp8": "True"}):
        found = choose("llama-2-7b", 4, 80, **{**GUIDE, **flags})
        assert found["sharding_strategy"] == "NO_SHARD"
