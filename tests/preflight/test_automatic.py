"""With --use_fast_kernels what is not named is chosen, and printed with its reason."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_checkpoint import checkpoint
from test_memory_rules import model_folder

from llama_recipes_local import launch
from llama_recipes_local.errors import UsageError
from llama_recipes_local.planning.cards import Card, card
from llama_recipes_local.preflight import all_problems, automatic, memory_rules
from llama_recipes_local.preflight.automatic_rules import check_automatic
from llama_recipes_local.run.record import CONFIGURATION_FILE, save_description
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

    def of(name: str, gpus: int, memory: int, hosts: int = 1, **flags: str) -> dict[str, object]:
        monkeypatch.setattr(automatic, "this_card", lambda: card(memory))
        monkeypatch.setattr(memory_rules, "this_card", lambda: card(memory))
        monkeypatch.setattr(launch, "world_size", lambda: gpus)
        monkeypatch.setattr(launch, "ranks_of_host", lambda: gpus // hosts)
        run = resolve({"model_name": str(model_folder(name, tmp_path)), **flags})
        chosen, why = automatic.automatic(run)
        assert bool(chosen) == bool(why)
        for flag in chosen:
            assert f"--{flag}" in why
            assert flag not in run.given or run.automatic
        after = resolve({**run.flags, **chosen})
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
    # links of such cards are slow: replicas have none to wait for
    assert choose("llama-2-7b", 4, 24, **GUIDE) == NO_SHARD
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


def test_what_says_auto_is_chosen_and_named(choose: Any) -> None:
    plain = {"enable_fsdp": "True", "use_peft": "True", "gradient_accumulation_steps": "8"}
    sharding = choose("llama-2-7b", 4, 80, **plain, sharding_strategy="auto")
    assert sharding == NO_SHARD  # the others are as they were
    rows = choose("smollm2-135m", 4, 80, **plain, batch_size_training="auto")
    # 4 rows of upstream's, 8 times
    assert rows["batch_size_training"] * rows["gradient_accumulation_steps"] == 32
    assert rows["batch_size_training"] > 4
    assert set(rows) == {"batch_size_training", "gradient_accumulation_steps"}
    one_row = {**plain, "batch_size_training": "1"}
    assert choose("llama-2-7b", 4, 80, **one_row, activation_policy="auto") == KEEP
    named = {"sharding_strategy": "FULL_SHARD", "activation_policy": "auto"}
    assert "sharding_strategy" not in choose("llama-2-7b", 4, 24, **plain, **named)
    # named, although nothing changes, also for padded rows
    padded = {"batching_strategy": "padding", "activation_policy": "auto"}
    found = choose("smollm2-135m", 1, 80, use_peft="True", **padded)
    assert found == KEEP


def test_nodes_get_hybrid_shards_where_links_between_them_are_slow(
    choose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "this_card", lambda: card(80))
    flags = {"enable_fsdp": "True", "use_peft": "True", "sharding_strategy": "auto"}
    found = choose("llama-2-70b", 32, 80, **flags, use_fast_kernels="True")
    assert found["sharding_strategy"] == "FULL_SHARD"
    spread = {**flags, "use_fast_kernels": "True"}
    assert choose("llama-2-70b", 32, 80, hosts=4, **spread)["sharding_strategy"] == "HYBRID_SHARD"


def test_rows_that_a_flag_names_stay_in_each_step(choose: Any) -> None:
    lora = {"use_peft": "True", "use_fast_kernels": "True", "target_modules": "all-linear"}
    long = {**lora, "context_length": "16384", "gradient_accumulation_steps": "2"}
    found = choose("llama-3.1-8b", 1, 24, **long)
    assert "batch_size_training" not in found  # its accumulation is named
    left = choose("llama-3.1-8b", 1, 24, **long, batch_size_training="auto")
    assert left["batch_size_training"] * left["gradient_accumulation_steps"] == 8


AUTO = dict.fromkeys(("sharding_strategy", "activation_policy", "batch_size_training"), "auto")


@pytest.fixture
def resumed(tmp_path: Path) -> dict[str, str]:
    """The flags that resume a run that was sharded, made norms again and had rows one by one."""
    was = {
        **GUIDE,
        "sharding_strategy": "FULL_SHARD",
        "activation_policy": "selective",
        "batch_size_training": 1,
        "gradient_accumulation_steps": 8,
    }
    folder = checkpoint(tmp_path / "out", 5)
    save_description(resolve(was), folder / CONFIGURATION_FILE)
    flags = {**GUIDE, "gradient_accumulation_steps": "2", "output_dir": str(tmp_path / "out")}
    return {**flags, "resume_from_checkpoint": "auto"}


def test_a_run_that_resumes_keeps_what_was_chosen_for_it(
    choose: Any, resumed: dict[str, str], tmp_path: Path
) -> None:
    selective = {"activation_policy": "selective"}
    kept = {"sharding_strategy": "FULL_SHARD"} | selective
    rows = {"batch_size_training": 1, "gradient_accumulation_steps": 8}
    assert choose("llama-2-7b", 4, 80, **{**resumed, **AUTO}) == kept | rows
    # without "auto" too, where replicas that keep all would be chosen
    assert choose("llama-2-7b", 4, 80, **resumed) == selective
    named = {"sharding_strategy": "NO_SHARD", "activation_policy": "keep"}
    assert choose("llama-2-7b", 4, 80, **{**resumed, **AUTO, **named}) == rows
    elsewhere = {"output_dir": str(tmp_path / "new")}
    assert choose("llama-2-7b", 4, 80, **{**resumed, **AUTO, **elsewhere}) != kept | rows
    fewer = choose("llama-2-7b", 2, 80, **{**resumed, **AUTO, "gradient_accumulation_steps": "1"})
    assert fewer == kept | {"batch_size_training": 1, "gradient_accumulation_steps": 4}
    direct = {**elsewhere, "resume_from_checkpoint": str(tmp_path / "out/checkpoint-5")}
    assert choose("llama-2-7b", 4, 80, **{**resumed, **AUTO, **direct}) == kept | rows


def test_a_cpu_chooses_too_and_says_on_what_basis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = Card("this CPU", 40, 0.05, 0.03, 10, measured=True, probed=True, on_cpu=True)
    monkeypatch.setattr(automatic, "this_cpu", lambda: cpu)
    folder = str(model_folder("smollm2-135m", tmp_path))
    flags = {"model_name": folder, "use_peft": "True", "context_length": "2048"}
    flags |= {"activation_policy": "auto", "batch_size_training": "auto"}
    for memory, expected in (
        (40, {"activation_policy": "keep", "batch_size_training": 4}),
        (8, {"activation_policy": "keep", "batch_size_training": 1}),
        (4, {"gradient_checkpointing": True, "batch_size_training": 1}),
    ):
        monkeypatch.setattr(automatic, "this_cpu", lambda m=memory: replace(cpu, memory=m))
        found, why = automatic.automatic(resolve(flags))
        assert expected.items() <= found.items()
        assert "0.05 TFLOP/s, measured on this CPU" in why
    assert automatic.automatic(resolve({**flags, "activation_policy": "keep"}))[0]
    monkeypatch.setattr(automatic, "this_cpu", lambda: pytest.fail("nothing is left to choose"))
    named = {**flags, "activation_policy": "keep", "batch_size_training": "2"}
    assert automatic.automatic(resolve({**named, "use_fast_kernels": "True"})) == ({}, "")


def test_what_is_left_to_preflight_may_be_changed_later(tiny_run: dict[str, Any]) -> None:
    left = {"batch_size_training": "auto", "activation_policy": "auto"}
    run = all_problems.preflight((), {**tiny_run, **left, "context_length": 64})
    assert run.train.batch_size_training * run.train.gradient_accumulation_steps == 4
    assert {"batch_size_training", "gradient_accumulation_steps"} <= run.chosen
    assert run.may_change("batch_size_training")
    assert run.may_change("sharding_strategy")
    assert not run.may_change("context_length")
    assert "tok/s are predicted" in run.choices


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ({"sharding_strategy": "auto"}, "--sharding_strategy without --enable_fsdp"),
        (
            {"sharding_strategy": "auto", "hsdp": "True", "enable_fsdp": "True"},
            "--sharding_strategy auto with --hsdp",
        ),
        ({"lr": "auto"}, "--lr cannot be 'auto'"),
        ({"gradient_accumulation_steps": "auto"}, "--gradient_accumulation_steps cannot be 'auto'"),
    ],
)
def test_what_cannot_be_left_to_preflight_is_refused(
    tiny_run: dict[str, Any], flags: dict[str, str], what: str
) -> None:
    with pytest.raises(UsageError) as refused:
        all_problems.preflight((), {**tiny_run, **flags, "context_length": 64})
    assert any(problem.what == what for problem in refused.value.problems)


def test_a_model_that_the_arithmetic_does_not_know_is_chosen_nothing_for(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mllama"}')
    run = resolve({"model_name": str(tmp_path), "batch_size_training": "auto"})
    (problem,) = check_automatic(run)
    assert "mllama" in problem.why
