"""A run's ``checkpoint-STEP`` becomes the trained model; what was not trained is the base's."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from convert_command import assert_same, convert, read_json, refused
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from llama_recipes_local import cli
from llama_recipes_local.finetuning import main

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Run:
    """A run of two steps with a checkpoint of each."""

    base: Path
    output: Path

    @property
    def checkpoint(self) -> Path:
        return self.output / "checkpoint-2"

    @property
    def first(self) -> Path:
        """Written before the model was saved for the first time."""
        return self.output / "checkpoint-1"

    @property
    def final(self) -> dict[str, torch.Tensor]:
        return load_file(self.output / "model.safetensors")


@pytest.fixture
def trained(tiny_model: Path, grammar_data: Path, tmp_path: Path) -> Callable[..., Run]:
    """Fine-tunes a copy of a model, by default the tiny one."""

    def train(model: Path = tiny_model, **flags: Any) -> Run:
        base = shutil.copytree(model, tmp_path / "base")
        options = {"model_name": str(base), "data_root": str(grammar_data), "lr": 0.01}
        options |= {"dataset": "grammar_dataset", "context_length": 128, "num_epochs": 1}
        options |= {"max_train_step": 2, "save_steps": 1, "num_workers_dataloader": 0}
        main(**options | flags, output_dir=str(tmp_path / "run"), run_validation=False)
        return Run(base, tmp_path / "run")

    return train


def test_a_checkpoint_of_a_run_becomes_the_model_that_was_trained(
    trained: Callable[..., Run], tmp_path: Path
) -> None:
    run = trained()
    (run.base / "model.safetensors").unlink()  # every weight is in the checkpoint
    convert(run.checkpoint, "--out", tmp_path / "out")
    assert_same(tmp_path / "out", run.final)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out")("She")["input_ids"]


@pytest.mark.parametrize("command", ["generate", "evaluate", "finetune"])
def test_a_checkpoint_given_as_a_model_is_refused_with_the_command_that_converts_it(
    command: str, trained: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained().checkpoint
    words = ["--prompt", "She"] if command == "generate" else []
    capsys.readouterr()
    try:
        code = cli.main([command, "--model_name", str(folder), *words])
    except SystemExit as error:  # as finetuning.py ends
        code = error.code
    said = capsys.readouterr().err
    assert code == 2 and "has no config.json" not in said
    assert f"llama-recipes-local convert {folder} --out DIR" in said


def test_the_tokenizer_is_the_one_of_training_or_is_asked_for(
    trained: Callable[..., Run],
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = trained()
    bare = tmp_path / "bare"
    shutil.copytree(run.base, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    convert(run.checkpoint, "--model", bare, "--out", tmp_path / "out")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out")("She")["input_ids"]
    (run.base / "tokenizer.json").unlink()
    words = (run.checkpoint, "--model", bare)
    assert "--tokenizer_name DIR" in refused(capsys, tmp_path / "again", *words)
    convert(*words, "--tokenizer_name", tiny_model, "--out", tmp_path / "again")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("flags", "count"),
    [
        ({"freeze_layers": True, "num_freeze_layers": 1}, 9),
        ({"train_only": "lm_head"}, 20),
        ({"train_only": "last:1"}, 12),
        ({"top_layers": 2}, 21),
    ],
    ids=str,
)
def test_what_was_not_trained_is_copied_from_the_base_model(
    flags: dict[str, Any],
    count: int,
    dtype: str,
    trained: Callable[..., Run],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = trained(dtype=dtype, **flags)
    capsys.readouterr()
    convert(run.checkpoint, "--out", tmp_path / "out")
    said = capsys.readouterr().out
    assert f"{count} of {len(run.final)} tensors were not trained" in said and str(run.base) in said
    assert_same(tmp_path / "out", run.final)
    convert(run.first, "--out", tmp_path / "first")
    theirs = read_json(run.output / "config.json") | {"use_cache": True}
    assert read_json(tmp_path / "out/config.json") == theirs
    assert read_json(tmp_path / "first/config.json") == theirs
    _, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype="auto", output_loading_info=True
    )
    left = {name.partition(".linear")[0] for name in info.pop("unexpected_keys")}
    assert left == {f"model.top_layers.{number}" for number in range(flags.get("top_layers", 0))}
    assert not any(info.values()), info


@pytest.mark.parametrize("flags", [{"train_only": "last:1"}, {"top_layers": 1}], ids=str)
def test_a_tied_head_is_written_once(
    flags: dict[str, Any], tied_model: Path, trained: Callable[..., Run], tmp_path: Path
) -> None:
    run = trained(tied_model, **flags)
    convert(run.checkpoint, "--out", tmp_path / "out")
    assert "lm_head.weight" not in run.final
    assert_same(tmp_path / "out", run.final)


def test_the_base_model_may_be_sharded_and_moved_and_the_dtype_chosen(
    trained: Callable[..., Run], tiny_model: Path, tmp_path: Path, capsys: Any
) -> None:
    """Each number is rounded to the run's dtype before it is cast."""
    shards = shutil.copytree(tiny_model, tmp_path / "shards")
    (shards / "model.safetensors").unlink()
    model = transformers.LlamaForCausalLM.from_pretrained(tiny_model)
    model.save_pretrained(shards, max_shard_size="200KB")
    assert len(list(shards.glob("*.safetensors"))) > 1
    run = trained(shards, train_only="last:1", dtype="bfloat16")
    moved = run.base.rename(tmp_path / "moved")
    error = refused(capsys, tmp_path / "out", run.checkpoint)
    assert f"the model that was trained is not in {run.base}" in error and "--model DIR" in error
    words = ("--model", moved, "--dtype", "float32")
    convert(run.checkpoint, *words, "--out", tmp_path / "out")
    assert_same(tmp_path / "out", {name: tensor.float() for name, tensor in run.final.items()})


@pytest.mark.ranks
def test_shards_of_two_ranks_that_were_cast_after_loading(
    run_finetuning: Callable[..., Any], tiny_model: Path, grammar_data: Path, tmp_path: Path
) -> None:
    flags = ["--enable_fsdp", "--pure_bf16", "--top_layers", 2, "--model_name", tiny_model]
    flags += ["--checkpoint_type", "FULL_STATE_DICT", "--data_root", grammar_data, "--lr", 0.01]
    flags += ["--dataset", "grammar_dataset", "--context_length", 128, "--num_epochs", 1]
    flags += ["--max_train_step", 2, "--save_steps", 1, "--run_validation", False]
    ran = run_finetuning(*flags, "--output_dir", "run", cwd=tmp_path, nproc=2)
    assert ran.returncode == 0, ran.stderr
    run = Run(tiny_model, tmp_path / "run")
    convert(run.checkpoint, "--out", tmp_path / "out")
    (whole,) = (tmp_path / "checkpoints").rglob("model.safetensors")
    assert_same(tmp_path / "out", load_file(whole))
    convert(run.first, "--out", tmp_path / "first")
    dtypes = {tensor.dtype for tensor in load_file(tmp_path / "first/model.safetensors").values()}
    assert dtypes == {torch.bfloat16}


@pytest.fixture
def more_tokens(tiny_model: Path, tmp_path: Path) -> dict[str, str]:
    """The flags of a tokenizer with three tokens that the tiny model has no rows for, and data."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens([f"<{number}>" for number in range(1003 - len(tokenizer))])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    last = tokenizer.convert_ids_to_tokens(1002)
    row = {"prompt": f"She go {last} to school.", "completion": " She goes to school."}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * 99)
    return {
        "tokenizer_name": str(tmp_path / "tokenizer"),
        "dataset": str(tmp_path / "rows.jsonl"),
    }


@pytest.mark.parametrize("name", ["last:1", "lm_head"])
def test_untrained_rows_for_new_tokens_are_asked_for(
    name: str, more_tokens: Any, trained: Callable[..., Run], tmp_path: Path, capsys: Any
) -> None:
    run = trained(train_only=name, **more_tokens)
    error = refused(capsys, tmp_path / "out", run.checkpoint)
    assert "embed_tokens.weight of shape (1000, 64) instead of (1003, 64)" in error
    assert f"--resume_from_checkpoint {run.checkpoint}" in error


def test_trained_rows_for_new_tokens_are_converted(
    more_tokens: Any, trained: Callable[..., Run], tmp_path: Path
) -> None:
    run = trained(freeze_layers=True, num_freeze_layers=1, **more_tokens)
    convert(run.checkpoint, "--out", tmp_path / "out")
    assert_same(tmp_path / "out", run.final)
    assert read_json(tmp_path / "out/config.json")["vocab_size"] == 1003


def test_an_incomplete_checkpoint_of_a_run_is_refused(
    trained: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(freeze_layers=True, num_freeze_layers=1)
    fewer = shutil.copytree(run.base, tmp_path / "fewer")
    config = read_json(run.base / "config.json") | {"num_hidden_layers": 1}
    (fewer / "config.json").write_text(json.dumps(config))
    error = refused(capsys, tmp_path / "out", run.checkpoint, "--model", fewer)
    assert "unexpected: model.layers.1." in error
    (path,) = (run.checkpoint / "model").glob("*.safetensors")
    whole = path.read_bytes()
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({"lm_head.weight": load_file(path)["lm_head.weight"]}, path, metadata)
    error = refused(capsys, tmp_path / "out", run.checkpoint)
    assert "missing: model.embed_tokens.weight" in error and "copy the checkpoint again" in error
    path.write_bytes(whole)
    for name in ("identity.json", "model/config.json"):
        (run.checkpoint / name).write_text("{")
        error = refused(capsys, tmp_path / "out", run.checkpoint)
        assert f"{run.checkpoint / name}" in error and "copy the checkpoint again" in error


def test_a_base_model_other_than_the_runs_is_refused(
    trained: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(train_only="last:1")
    start = load_file(run.base / "model.safetensors")
    config = read_json(run.base / "config.json")

    def error(changed: dict[str, torch.Tensor], **settings: Any) -> str:
        other = shutil.copytree(run.base, tmp_path / "other", dirs_exist_ok=True)
        save_file(changed, other / "model.safetensors", {"format": "pt"})
        (other / "config.json").write_text(json.dumps(config | settings))
        said = refused(capsys, tmp_path / "out", run.checkpoint, "--model", other)
        assert "1 problem found" in said and "--model DIR" in said
        return said

    norm = "model.norm.weight"
    assert f"missing: {norm}" in error({name: start[name] for name in start if name != norm})
    rows = start | {"lm_head.weight": start["lm_head.weight"][:-1].clone()}
    assert "shape mismatch: lm_head.weight of shape (999, 64) instead of (1000, 64)" in error(rows)
    wider = error(start, intermediate_size=96)
    assert "layers.1.mlp.down_proj.weight of shape (64, 128) instead of (64, 96)" in wider
    assert "missing: model.layers.2." in error(start, num_hidden_layers=3)
    assert "missing: model.layers.0." in error(start, num_hidden_layers=1)
    assert "the hash of its weights differs" in error(start | {norm: start[norm] + 1})
    said = refused(capsys, tmp_path / "out", run.checkpoint, "--model", tmp_path / "none")
    assert "has no config.json" in said and "--model DIR" in said
    (run.base / "model.safetensors").unlink()
    assert f"{run.base} has no weights" in refused(capsys, tmp_path / "out", run.checkpoint)


def test_a_checkpoint_of_an_adapter_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    (folder / "manifest.json").touch()
    (folder / "adapter_model.safetensors").touch()
    assert cli.main(["convert", str(folder), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert f"{folder} is a checkpoint of an adapter" in error and "--adapter" in error
    assert not (tmp_path / "out").exists()
