"""``--config``: flags win over a file's settings, and a run's record repeats the run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llama_recipes_local.cli import main as cli
from llama_recipes_local.errors import UsageError
from llama_recipes_local.finetuning import main
from llama_recipes_local.preflight import preflight
from llama_recipes_local.preflight.all_problems import _resolved as resolved
from llama_recipes_local.preflight.config_file import with_config
from llama_recipes_local.run import Run
from llama_recipes_local.typed_words import Typed, read_words

SETTINGS = """\
lr: 1e-3
use_peft: true
lora_config:
  r: 4
lora_alpha: 8
quantization_config.quant_type: nf4
grammar_dataset:
  train_split: a.csv
"""


def configured(folder: Path, text: str, **flags: Any) -> Run:
    path = folder / "mine.yaml"
    path.write_text(text)
    run, problems = resolved((), {"config": str(path), **flags})
    assert problems == []
    return run


def test_settings_are_flags(tmp_path: Path) -> None:
    run = configured(tmp_path, SETTINGS, dataset="grammar_dataset")
    assert (run.train.lr, run.train.use_peft, run.peft.r, run.peft.lora_alpha) == (1e-3, True, 4, 8)
    assert run.quantization.quant_type == "nf4" and run.dataset.train_split == "a.csv"
    assert {"lr", "r", "lora_alpha"} <= run.given  # as any flag: nothing is chosen for them
    assert run.recipe.splitlines()[:2] == [
        f"--> {tmp_path / 'mine.yaml'} sets (flags win):",
        "      --lr 1e-3",
    ]


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        ({"r": "16"}, {"r": 16}),  # the file's is lora_config.r
        ({"lora_config.lora_alpha": "32"}, {"lora_alpha": 32}),  # the file's is lora_alpha
        ({"nouse_peft": True}, {"use_peft": False}),
        ({"use_peft": "False"}, {"use_peft": False}),
        ({"train_config.lr": "2"}, {"lr": 2}),
        ({"grammar_dataset.train_split": "b.csv"}, {"train_split": "b.csv"}),
    ],
)
def test_flags_win(flags: dict[str, Any], changed: dict[str, Any], tmp_path: Path) -> None:
    run = configured(tmp_path, SETTINGS, dataset="grammar_dataset", **flags)
    ((name, value),) = changed.items()
    assert [getattr(each, name) for each in run.configurations() if hasattr(each, name)] == [value]
    assert not any(f"--{before}{name} " in run.recipe for before in ("", "lora_config."))


def test_a_path_given_replaces_the_files_data(tmp_path: Path) -> None:
    text = "dataset: old/rows.jsonl\nlocal_dataset:\n  columns: prompt=q,completion=a\n"
    run = configured(tmp_path, text)
    assert run.dataset.data_path == "old/rows.jsonl"
    assert "\n      --dataset old/rows.jsonl\n" in run.recipe  # as the file has it
    run = configured(tmp_path, text, dataset="new.jsonl")
    assert (run.dataset.data_path, run.dataset.columns) == ("new.jsonl", "")


def test_a_policy_given_overrides_the_files_recomputation(tmp_path: Path) -> None:
    text = "gradient_checkpointing: true\n"
    assert configured(tmp_path, text).train.gradient_checkpointing is True
    run = configured(tmp_path, text, activation_policy="keep")
    assert run.train.gradient_checkpointing is False


def test_problems_name_the_line_and_come_with_all_others(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "lrr: 1\nuse_peft: yes\nlora_confg:\n  r: 8\ngrammar_dataset:\n  trainsplit: x\nconfig: y\n"
    )
    with pytest.raises(UsageError) as refused:
        preflight((), {"config": str(path), "num_epocs": "3", "model_name": "none"})
    found = {each.what: each.fix for each in refused.value.problems}
    assert found[f"{path}, line 1: unknown flag --lrr"] == "did you mean --lr?"
    assert f"{path}, line 2: --use_peft cannot be 'yes'" in found
    assert found[f"{path}, line 4: unknown section lora_confg"] == "did you mean lora_config?"
    fix = found[f"{path}, line 6: unknown flag --grammar_dataset.trainsplit"]
    assert fix == "did you mean --grammar_dataset.train_split?"
    assert f"{path}, line 7: config in a file" in found
    assert found["unknown flag --num_epocs"] == "did you mean --num_epochs?"


def test_a_file_that_cannot_be_is_one_problem(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    _, (problem,) = resolved((), {"config": Typed(tmp_path / "loop")})
    assert "leads back to itself" in problem.why


@pytest.mark.parametrize("value", [Typed(""), True])
def test_a_flag_without_a_file(value: object) -> None:
    _, (problem,) = resolved((), {"config": value})
    assert "--config" in problem.what and problem.fix


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "qlora", "--config", "lora"],
        ["--config=qlora", "--lr", "1", "--config=lora"],
        ["--config", "qlora", "--train_config.config", "lora"],
        ["--preset", "qlora", "--preset", "lora"],
    ],
)
def test_a_second_file_does_not_replace_the_first(words: list[str]) -> None:
    _, flags = read_words(words)
    _, (problem,) = resolved((), flags)
    assert "qlora with --" in problem.what and problem.what.endswith(" lora")
    assert resolved((), read_words(["--config", "lora", "--config", "lora"])[1])[1] == []


def record_of(run: dict[str, Any], folder: Path, **flags: Any) -> Path:
    main(**run | {"output_dir": str(folder), "run_validation": False} | flags)
    return folder / "run_config.json"


def test_a_record_repeats_the_run_to_the_bit(
    tiny_run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {
        "use_peft": True,
        "target_modules": "all-linear",
        "lora_dropout": 0.2,
        "seed": 11,
        "context_length": 96,
        "max_train_step": 3,
        "scheduler": "cosine",
        "save_steps": 2,
        "batch_size_training": 2,
        "gradient_clipping": True,
        "optimizer": "anyprecision",
        "grammar_dataset.test_split": "datasets/grammar/gtrain_10k.csv",
    }
    record = record_of(tiny_run, tmp_path / "first", **flags)
    capsys.readouterr()
    main(config=str(record), output_dir=str(tmp_path / "again"))
    said = capsys.readouterr().out
    assert f"not taken, as they are of that run or its machine: output_dir {tmp_path}" in said
    one, other = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()]
        for name in ("first", "again")
    )
    assert len(one) == 3
    for was, now in zip(one, other, strict=True):
        assert (was["loss"], was["grad_norm"], was["lr"]) == (
            now["loss"],
            now["grad_norm"],
            now["lr"],
        )
    first, again = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("first", "again")
    )
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    was, now = (
        json.loads((tmp_path / name / "run_config.json").read_text()) for name in ("first", "again")
    )
    differing = {"output_dir", "config"}
    for section, fields in was.items():
        if isinstance(fields, dict):
            for name in fields.keys() - differing:
                assert fields[name] == now[section][name], name
    # and flags win over it
    run, problems = resolved((), {"config": str(record), "seed": "12", "lora_config.r": "2"})
    assert problems == [] and (run.train.seed, run.peft.r) == (12, 2)


def test_what_a_record_does_not_give(tmp_path: Path) -> None:
    train = {
        "output_dir": "o",
        "resume_from_checkpoint": "auto",
        "data_cache": "c",
        "dry_run": True,
        "overwrite_output_dir": True,
        "config": "lora",
        "lr": 0.5,
        "num_epochs": 3,
        "batch_size_training": 4,
    }
    sections = {
        "train_config": train,
        "fsdp_config": {"sharding_strategy": "ShardingStrategy.FULL_SHARD"},
        "quantization_config": {"quant_storage": "torch.uint8", "compute_dtype": "torch.bfloat16"},
        "wandb_config": {"id": "abc", "project": "mine"},
        "versions": {"torch": "1"},
    }
    path = tmp_path / "run_config.json"
    path.write_text(json.dumps(sections))
    found = with_config({"config": str(path)})
    assert found.problems == []
    assert found.settings == {
        "lr": "0.5",
        "batch_size_training": "4",  # it is chosen where it is not named
        "quant_storage": "torch.uint8",
        "project": "mine",
    }
    assert {each.split()[0] for each in found.left_out} == {
        *("output_dir", "resume_from_checkpoint", "data_cache", "dry_run", "overwrite_output_dir"),
        "id",
    }


def test_other_commands_take_it(
    tiny_run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    lines = {**tiny_run, "use_peft": "true", "context_length": 96, "max_train_step": 1}
    path.write_text("".join(f"{name}: {value}\n" for name, value in lines.items()))
    assert cli(["inspect", "--config", str(path), "--rows", "1"]) == 0
    assert "packed into" in capsys.readouterr().out
    words = ["plan", "--config", str(path), "--model_name", "llama-2-7b", "--context_length", "64"]
    assert cli(words) == 0
    said = capsys.readouterr().out
    assert "4 rows of 64 tokens" in said and "--config" not in said and "--use_peft" in said
    path.write_text(path.read_text() + "lrr: 1\n")
    for command in ("inspect", "plan", "evaluate"):
        assert cli([command, "--config", str(path)]) == 2
        assert f"{path}, line 8: unknown flag --lrr" in capsys.readouterr().err


def test_evaluate_takes_the_models_and_the_datas_settings(
    tiny_run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    lines = {**tiny_run, "context_length": 96, "max_eval_step": 1, "lr": "1"}
    path.write_text("".join(f"{name}: {value}\n" for name, value in lines.items()))
    out = tmp_path / "e.json"
    words = ["evaluate", "--config", str(path), "--metrics", "loss", "--out", str(out)]
    assert cli([*words, "--context_length", "64"]) == 0
    about = json.loads(out.read_text())["about"]["train_config"]
    assert (about["context_length"], about["max_eval_step"]) == (64, 1)
