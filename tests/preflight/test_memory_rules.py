"""What certainly does not fit is refused before a weight is loaded, with what fits."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llama_recipes_local import cli, finetuning_run, launch
from llama_recipes_local.data.audit import Counts, SplitAudit, audit_split
from llama_recipes_local.data.concatenator import ConcatDataset
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.datasets.prepared_data import RunData
from llama_recipes_local.errors import Problem
from llama_recipes_local.planning.cards import Card, card
from llama_recipes_local.planning.shapes import KNOWN
from llama_recipes_local.preflight import device_card, dry_run, memory_rules
from llama_recipes_local.preflight.dry_run import dry_run_text, planned_changes
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.utils.config_utils import get_dataloader_kwargs

ALL_16 = {"use_peft": "True", "target_modules": "all-linear", "r": "16"}
FAST = {"use_fast_kernels": "True"}
FOUR_BIT = {"quantization": "4bit", "quant_type": "nf4", "use_double_quant": "True"}


def model_folder(name: str, tmp_path: Path) -> Path:
    shape = KNOWN[name]
    config = {
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied,
        "max_position_embeddings": shape.positions,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def problems(
    name: str, on: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **flags: Any
) -> list[Problem]:
    monkeypatch.setattr(memory_rules, "this_card", lambda: on)
    folder = model_folder(name, tmp_path)
    return memory_rules.check_memory(resolve({"model_name": str(folder), **flags}))


@pytest.mark.parametrize(
    ("name", "memory", "flags"),
    [
        ("llama-2-7b", 24, {}),
        ("llama-2-7b", 24, {"use_peft": "True", "batch_size_training": "8"}),
        ("llama-2-7b", 80, {**ALL_16, "batch_size_training": "8"}),
        ("llama-3.1-8b", 80, {**ALL_16, **FAST, "batch_size_training": "8"}),
        ("llama-3.1-8b", 80, {**ALL_16, "context_length": "32768"}),
        ("llama-2-13b", 24, {**ALL_16, **FAST, "gradient_checkpointing": "True"}),
        ("llama-2-13b", 80, {**FAST, "gradient_checkpointing": "True"}),
        ("llama-3.1-70b", 80, {**ALL_16, **FAST, "batch_size_training": "1"}),
        ("llama-3.1-70b", 24, {**ALL_16, **FAST, **FOUR_BIT, "batch_size_training": "1"}),
        ("llama-3.1-70b", 80, {**ALL_16, **FAST, **FOUR_BIT, "batch_size_training": "8"}),
        ("smollm2-135m", 8, {"batch_size_training": "64", "context_length": "8192"}),
    ],
)
def test_what_cannot_fit_is_refused_with_what_fits(
    name: str,
    memory: int,
    flags: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (problem,) = problems(name, card(memory), tmp_path, monkeypatch, **flags)
    assert f"which has {card(memory).memory:.1f}" in problem.what
    assert "weights" in problem.why
    if problem.fix.startswith("--"):
        told = shlex.split(problem.fix.partition(" (")[0].replace(", without", " --without"))
        fixed = dict(zip([word[2:] for word in told[::2]], told[1::2], strict=False))
        without = fixed.pop("without", None)
        kept = {key: value for key, value in flags.items() if f"--{key}" != without}
        assert problems(name, card(memory), tmp_path, monkeypatch, **{**kept, **fixed}) == []
    else:
        assert f"plan --model_name {tmp_path} --gpus 1" in problem.fix


def test_what_was_measured_to_fit_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 41.8 GiB with liger-kernel: on a card that has hardly more
    lora = {"use_peft": "True", **FAST, "batch_size_training": "2"}
    for on, refused in ((38.5, False), (28, True)):
        found = problems("llama-2-7b", replace(card(80), memory=on), tmp_path, monkeypatch, **lora)
        assert bool(found) is refused, on


def test_what_a_folder_has_packed_is_not_taken_for_16_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = {"use_peft": "True", **FAST, "activation_policy": "full"}
    assert problems("llama-2-70b", card(80), tmp_path, monkeypatch, **flags)
    config = tmp_path / "config.json"
    packed = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    config.write_text(json.dumps(json.loads(config.read_text()) | packed))
    assert memory_rules.check_memory(resolve({"model_name": str(tmp_path), **flags})) == []


def test_a_cpu_has_what_its_host_has_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 4.5 GiB as the run showed, LoRA on one row of 2,048 tokens
    folder = {"model_name": str(model_folder("smollm2-135m", tmp_path)), "use_peft": "True"}
    monkeypatch.setattr(device_card, "device_type", lambda: "cpu")
    monkeypatch.setattr(device_card, "total_bytes", lambda: 1000 * 2**30)
    for rows, free, refused in ((1, 4.5, False), (1, 3.0, True), (8, 22.0, True)):
        monkeypatch.setattr(device_card, "available_bytes", lambda free=free: int(free * 2**30))
        flags = {**folder, "batch_size_training": str(rows), "context_length": "2048"}
        found = memory_rules.check_memory(resolve(flags))
        assert bool(found) is refused, (rows, free)
        elsewhere = memory_rules.check_memory(resolve({**flags, "dry_run": "True"}))
        assert elsewhere == [], "it is planned for a GPU"
    assert found[0].what.endswith("GiB of host memory for each process, which has 22.0 available")
    assert found[0].fix.startswith("--batch_size_training 4 --gradient_accumulation_steps 2 (needs")
    assert memory_rules.check_memory(resolve({**flags, "batch_size_training": "4"})) == []


def test_short_data_makes_short_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {**ALL_16, "batch_size_training": "2", "context_length": "32768"}
    data = tmp_path / "rows.jsonl"
    local = {"dataset": "local_dataset", "local_dataset.data_path": str(data), **flags}
    for size, refused in ((100_000, True), (100, False)):
        data.write_text('{"text": "some words"}\n' * (size // 23))
        found = problems("llama-3.1-8b", card(48), tmp_path, monkeypatch, **local)
        assert bool(found) is refused, size
    padded = {**flags, "batching_strategy": "padding"}
    assert problems("llama-3.1-8b", card(48), tmp_path, monkeypatch, **padded) == []


def test_a_validation_that_certainly_does_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, held_out = tmp_path / "train.jsonl", tmp_path / "held_out.jsonl"
    train.write_text('{"text": "some words"}\n' * 100)
    data = {"dataset": "local_dataset", "local_dataset.data_path": str(train)}
    data |= {"local_dataset.validation_path": str(held_out), **ALL_16, **FAST}
    for size, rows, refused in ((10, 512, False), (10**6, 4, False), (10**6, 512, True)):
        held_out.write_text('{"text": "some words"}\n' * size)
        flags = {**data, "val_batch_size": str(rows)}
        found = problems("llama-2-7b", card(24), tmp_path, monkeypatch, **flags)
        assert bool(found) is refused, (size, rows)
    assert found[0].fix == "--val_batch_size 1, or --run_validation False"
    assert "validation" in found[0].why


def test_without_a_device_or_a_known_model_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = resolve({"model_name": str(model_folder("llama-3.1-70b", tmp_path))})
    assert memory_rules.this_card() is None or memory_rules.check_memory(run)
    monkeypatch.setattr(memory_rules, "this_card", lambda: card(24))
    (tmp_path / "config.json").write_text('{"model_type": "mllama"}')
    assert memory_rules.check_memory(run) == []


def test_a_dry_run_counts_the_data_and_names_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run, "this_card", lambda: card(80))
    folder = model_folder("llama-2-7b", tmp_path)
    flags = {"use_peft": "True", **FAST, "num_epochs": "1", "gradient_checkpointing": "True"}
    run = resolve({"model_name": str(folder), **flags})
    audit = SplitAudit(Counts(), 10_000, 1_000_000, 400_000, 500, 0)
    few = SplitAudit(Counts(), 10, 1_000, 400, 500, 0)
    text = dry_run_text(run, {"train": audit})
    assert "for 1 epoch of 1,000,000 tokens (as tokenised)" in text
    large = resolve({"model_name": str(folder), **flags, "val_batch_size": "512"})
    assert "validation 1" in dry_run_text(large, {"train": audit})
    assert "validation 1" not in dry_run_text(large, {"train": audit, "validation": few})
    # named with --gradient_checkpointing, so the rows alone could be varied, to no use
    assert "--activation_policy" not in text
    del flags["gradient_checkpointing"]
    assert "--activation_policy" in dry_run_text(resolve({"model_name": str(folder), **flags}), {})


@pytest.mark.parametrize("strategy", ["packing", "padding"])
def test_a_dry_run_counts_the_steps_that_the_trainer_has(strategy: str, tmp_path: Path) -> None:
    lengths = [50, 39, 30] * 20  # two of 30 share a row of 64, the others have one each
    samples = [{"input_ids": [5] * size, "labels": [5] * size} for size in lengths]
    rows = TokenRows.from_samples(samples)
    flags = {"batch_size_training": "3", "gradient_accumulation_steps": "2", "num_epochs": "2"}
    flags |= {"batching_strategy": strategy, "context_length": "64", "use_peft": "True"}
    run = resolve({"model_name": str(model_folder("llama-2-7b", tmp_path)), **flags})
    run.data = RunData(splits={"train": rows})
    batched = rows if strategy == "padding" else ConcatDataset(rows, 64, run.train.seed)
    tokenizer: Any = SimpleNamespace(pad_token_id=0)
    sampler = get_dataloader_kwargs(run.train, batched, tokenizer, "train")["batch_sampler"]
    steps = 2 * -(-len(sampler) // 2)
    text = dry_run_text(run, {"train": audit_split(rows, Counts())})
    assert f"for 2 epochs of 2,380 tokens (as tokenised), {steps} steps" in " ".join(text.split())


def test_a_gpu_that_is_assumed_is_named_and_another_one_planned_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dry_run, "this_card", lambda: None)
    folder = model_folder("llama-2-7b", tmp_path)
    flags = {"use_peft": "True", "enable_fsdp": "True", "lr": "3e-4", "dry_run": "True"}
    monkeypatch.setattr(launch, "world_size", lambda: 8)
    monkeypatch.setattr(launch, "ranks_of_host", lambda: 4)
    run = resolve({"model_name": str(folder), **flags, "batch_size_training": "2"})
    text = dry_run_text(run, {})
    assert text.startswith("plan (no GPU here: as on H100, 80 GB)")
    command = text.partition("this CPU:\n")[2].partition("\n--dry_run")[0]
    shown = shlex.split(command.replace("\\\n", ""))
    words = shown[shown.index("plan") :]
    assert words[-6:-2] == ["--gpus", "4", "--nodes", "2"]
    assert {"--lr", "3e-4"} <= set(words)
    assert cli.main([*words[:-1], "4090"]) == 0
    assert "on 8 x RTX 4090" in capsys.readouterr().out
    # a job chooses where it runs: of an assumed GPU nothing may be named
    auto = {"sharding_strategy": "auto", "activation_policy": "auto"}
    assert planned_changes(run, {}) == auto
    monkeypatch.setattr(dry_run, "this_card", lambda: card(80))
    assert planned_changes(run, {})["sharding_strategy"] == "NO_SHARD"


def test_a_dry_run_trains_and_writes_nothing(
    tiny_run: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from llama_recipes_local import finetuning

    monkeypatch.setattr(finetuning_run, "train", lambda run: pytest.fail("it trains"))
    output = tmp_path / "out"
    finetuning.main(
        **tiny_run, use_peft=True, context_length=64, output_dir=str(output), dry_run=True
    )
    printed = capsys.readouterr().out
    assert "rows that end in" in printed or "rows" in printed
    assert "plan (" in printed
    assert not output.exists()
