"""Sharded checkpoints become folders that plain transformers loads; pickles are never run."""

import builtins
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from launching import run_ranks
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.metadata import Metadata

from llama_recipes_local import cli
from llama_recipes_local.finetuning import main
from llama_recipes_local.model_folders import writing

SCRIPT = Path(__file__).with_name("converting_ranks.py")


@pytest.fixture(scope="module")
def tied_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tied"
    shutil.copytree(tiny_model, folder)
    config = transformers.AutoConfig.from_pretrained(tiny_model, tie_word_embeddings=True)
    torch.manual_seed(2)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(
    environment: dict[str, str],
    tiny_model: Path,
    tied_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What two ranks saved, sharded by FSDP2 and, by upstream's own function, by FSDP1."""
    folder = tmp_path_factory.mktemp("checkpoints")
    logs = tmp_path_factory.mktemp("logs")
    run_ranks(SCRIPT, folder, tiny_model, tied_model, ranks=2, env=environment, logs=logs)
    return folder


def checkpoint(saved: Path, kind: str) -> Path:
    (folder,) = (saved / kind).iterdir()
    return folder


def convert(*words: object) -> None:
    assert cli.main(["convert", *map(str, words)]) == 0


def refused(capsys: pytest.CaptureFixture[str], out: Path, *words: object) -> str:
    capsys.readouterr()
    assert cli.main(["convert", *map(str, words), "--out", str(out)]) == 2
    assert not out.exists()
    return capsys.readouterr().err


def assert_same(ours: Path, theirs: dict[str, torch.Tensor]) -> None:
    """Compare a model's file with tensors, to the bit."""
    found = load_file(ours / "model.safetensors")
    assert found.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert found[name].dtype == tensor.dtype and found[name].equal(tensor), name


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@pytest.mark.parametrize("kind", ["ours", "theirs", "ours-tied", "theirs-tied"])
def test_the_folder_holds_the_model(
    kind: str,
    saved: Path,
    tiny_model: Path,
    tied_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writing, "SHARD_BYTES", 200_000)
    tied = kind.endswith("-tied")
    base = tied_model if tied else tiny_model
    named = () if kind.startswith("ours") else ("--model", base)
    convert(checkpoint(saved, kind), *named, "--out", tmp_path / "out")
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype="auto", output_loading_info=True
    )
    assert not any(info.values()), info
    expected = load_file(saved / f"expected{'-tied' if tied else ''}.safetensors")
    assert expected.keys() == model.state_dict().keys()
    assert all(model.state_dict()[name].equal(tensor) for name, tensor in expected.items())
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied
    files = list((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 1 and all("lm_head.weight" not in load_file(path) for path in files) is tied
    theirs, ours = map(transformers.AutoTokenizer.from_pretrained, (base, tmp_path / "out"))
    assert ours("She go to school.") == theirs("She go to school.")


def test_the_dtype_may_be_chosen(saved: Path, tmp_path: Path) -> None:
    convert(checkpoint(saved, "ours"), "--out", tmp_path / "out", "--dtype", "bfloat16")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    for name, tensor in load_file(saved / "expected.safetensors").items():
        assert model.state_dict()[name].equal(tensor.bfloat16()), name


def test_nothing_is_asked_on_the_console(
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def asked(*_: Any) -> str:
        raise AssertionError("the console was asked")

    monkeypatch.setattr(builtins, "input", asked)
    out = tmp_path / "out"
    theirs = checkpoint(saved, "theirs")
    error = refused(capsys, out, theirs)
    assert "train_params.yaml" in error and "--model DIR" in error
    ours = shutil.copytree(checkpoint(saved, "ours"), tmp_path / "ours")
    parameters = ours / "train_params.yaml"
    content = yaml.safe_load(parameters.read_text())
    parameters.write_text(yaml.safe_dump(content | {"model_name": "/no/such/model"}))
    error = refused(capsys, out, ours)
    assert "/no/such/model" in error and "--model DIR" in error
    for text in ("- a list", "a: [", "!!python/object/apply:os.getcwd []"):
        parameters.write_text(text)
        assert str(parameters) in refused(capsys, out, ours)


def test_another_model_is_refused(
    saved: Path, tied_model: Path, tiny_model: Path, tmp_path: Path, capsys: Any
) -> None:
    other = shutil.copytree(tiny_model, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    error = refused(capsys, tmp_path / "out", checkpoint(saved, "ours"), "--model", other)
    assert "it lacks model.layers.2." in error
    (other / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    error = refused(capsys, tmp_path / "out", checkpoint(saved, "ours"), "--model", other)
    assert "down_proj.weight of shape (64, 128) instead of (64, 96)" in error
    (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    error = refused(capsys, tmp_path / "out", checkpoint(saved, "ours"), "--model", other)
    assert "it holds model.layers.1." in error
    assert "no sharded checkpoint" in refused(capsys, tmp_path / "out", tiny_model)


@pytest.mark.parametrize("kind", ["ours", "theirs"])
@pytest.mark.parametrize("harm", ["missing", "cut"])
def test_a_checkpoint_that_is_not_whole(
    kind: str,
    harm: str,
    saved: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for which in (0, 1):
        folder = shutil.copytree(checkpoint(saved, kind), tmp_path / str(which))
        path = sorted([*folder.glob("*.safetensors"), *folder.glob("*.distcp")])[which]
        if harm == "missing":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        error = refused(capsys, tmp_path / "out", folder, "--model", tiny_model)
        assert str(folder) in error


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.folder),)


def disguises(folder: Path) -> dict[str, bytes]:
    """Pickles that would run code: plainly, inside a table, and by way of names that are let."""
    table = Metadata(state_dict_metadata={}, storage_data={}, planner_data=Bomb(folder))
    text = str(folder)
    path = f"X{chr(len(text))}\0\0\0{text}".encode()
    return {
        "plain": pickle.dumps(Bomb(folder)),
        "in a table": pickle.dumps(table),
        "eval": b"cbuiltins\neval\n(X\x0e\0\0\0__import__('x')tR.",
        "old eval": b"c__builtin__\neval\n(X\x0e\0\0\0__import__('x')tR.",
        "a module of a class that is let": b"ctorch.serialization\nos.mkdir\n(" + path + b"tR.",
        "dots": b"\x80\x04\x8c\x07pathlib\x8c\x0fPosixPath.mkdir\x93(" + path + b"tR.",
    }


@pytest.mark.parametrize("disguise", disguises(Path("x")))
def test_a_bomb_in_the_table_is_never_run(
    disguise: str,
    saved: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mark = tmp_path / "run"
    folder = shutil.copytree(checkpoint(saved, "theirs"), tmp_path / "theirs")
    (folder / ".metadata").write_bytes(disguises(mark)[disguise])
    error = refused(capsys, tmp_path / "out", folder, "--model", tiny_model)
    assert "which no such file needs" in error
    assert not mark.exists()


def test_a_table_that_leads_out_of_its_folder(
    saved: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(checkpoint(saved, "theirs"), tmp_path / "theirs")
    table = pickle.loads((folder / ".metadata").read_bytes())
    next(iter(table.storage_data.values())).relative_path = "../secret"
    (folder / ".metadata").write_bytes(pickle.dumps(table))
    (tmp_path / "secret").write_bytes(bytes(100_000))
    error = refused(capsys, tmp_path / "out", folder, "--model", tiny_model)
    assert "leads out of its folder" in error and "../secret" in error


def test_a_bomb_in_the_tensors_is_never_run(
    saved: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first tensor's zip is one of torch.save's, and its pickle a bomb."""
    mark = tmp_path / "run"
    folder = shutil.copytree(checkpoint(saved, "theirs"), tmp_path / "theirs")
    table = pickle.loads((folder / ".metadata").read_bytes())
    parts = table.storage_data.items()
    place = next(place for key, place in parts if key.fqn.endswith("embed_tokens.weight"))
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(bomb, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb(mark)))
        archive.writestr("archive/version", "3\n")
    assert bomb.stat().st_size < place.length
    path = folder / place.relative_path
    content = bytearray(path.read_bytes())
    content[place.offset : place.offset + bomb.stat().st_size] = bomb.read_bytes()
    path.write_bytes(content)
    place.length = bomb.stat().st_size
    (folder / ".metadata").write_bytes(pickle.dumps(table))
    error = refused(capsys, tmp_path / "out", folder, "--model", tiny_model)
    assert "more than tensors" in error
    assert not mark.exists()
    with pytest.raises(FileExistsError):  # the bomb works
        mark.mkdir()
        torch.load(bomb, weights_only=False)


def test_an_embedding_that_has_grown(saved: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Rows for new tokens are in the checkpoint, and not in the model it started from."""
    ours = shutil.copytree(checkpoint(saved, "ours"), tmp_path / "ours")
    for path in ours.glob("*.safetensors"):
        path.unlink()
    expected = load_file(saved / "expected.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        expected[name] = torch.cat([expected[name], torch.ones(3, 64)])
    save_file(expected, ours / "shard-00001-model-00001-of-00001.safetensors")
    convert(ours, "--out", tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.config.vocab_size == 1003
    assert all(model.state_dict()[name].equal(tensor) for name, tensor in expected.items())


def test_frequencies_that_transformers_once_saved_are_left_out(
    saved: Path, tiny_model: Path, tmp_path: Path
) -> None:
    expected = load_file(saved / "expected.safetensors")
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    folder = tmp_path / "sharded"
    folder.mkdir()
    path = folder / "shard-00001-model-00001-of-00001.safetensors"
    save_file(expected | {name: torch.ones(8)}, path)
    convert(folder, "--model", tiny_model, "--out", tmp_path / "out")
    assert_same(tmp_path / "out", expected)


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
        """Written before the model has been saved for the first time."""
        return self.output / "checkpoint-1"

    @property
    def final(self) -> dict[str, torch.Tensor]:
        return load_file(self.output / "model.safetensors")


@pytest.fixture
def trained(tiny_model: Path, grammar_data: Path, tmp_path: Path) -> Callable[..., Run]:
    """Fine-tunes a model of its own, the tiny one unless another is named."""

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
def test_a_checkpoint_that_is_named_for_a_model_is_to_be_converted(
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
def test_what_was_not_trained_is_the_base_models(
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


def test_a_base_in_shards_has_moved_and_another_dtype_is_asked_for(
    trained: Callable[..., Run], tiny_model: Path, tmp_path: Path, capsys: Any
) -> None:
    """Each number is rounded to what the run held before it is cast."""
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


def test_shards_of_two_ranks_that_were_cast_once_loaded(
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
    """The flag of a tokenizer with three tokens that the tiny model has no rows for."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens([f"<{number}>" for number in range(1003 - len(tokenizer))])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    return {"tokenizer_name": str(tmp_path / "tokenizer")}


@pytest.mark.parametrize("name", ["last:1", "lm_head"])
def test_rows_for_new_tokens_that_are_not_trained_are_nowhere(
    name: str, more_tokens: Any, trained: Callable[..., Run], tmp_path: Path, capsys: Any
) -> None:
    run = trained(train_only=name, **more_tokens)
    error = refused(capsys, tmp_path / "out", run.checkpoint)
    assert "embed_tokens.weight of shape (1000, 64) instead of (1003, 64)" in error
    assert f"--resume_from_checkpoint {run.checkpoint}" in error


def test_rows_for_new_tokens_that_are_trained(
    more_tokens: Any, trained: Callable[..., Run], tmp_path: Path
) -> None:
    run = trained(freeze_layers=True, num_freeze_layers=1, **more_tokens)
    convert(run.checkpoint, "--out", tmp_path / "out")
    assert_same(tmp_path / "out", run.final)
    assert read_json(tmp_path / "out/config.json")["vocab_size"] == 1003


def test_a_checkpoint_that_lacks_what_it_is_to_hold(
    trained: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(freeze_layers=True, num_freeze_layers=1)
    fewer = shutil.copytree(run.base, tmp_path / "fewer")
    config = read_json(run.base / "config.json") | {"num_hidden_layers": 1}
    (fewer / "config.json").write_text(json.dumps(config))
    error = refused(capsys, tmp_path / "out", run.checkpoint, "--model", fewer)
    assert "it holds model.layers.1." in error
    (path,) = (run.checkpoint / "model").glob("*.safetensors")
    whole = path.read_bytes()
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({"lm_head.weight": load_file(path)["lm_head.weight"]}, path, metadata)
    error = refused(capsys, tmp_path / "out", run.checkpoint)
    assert "it lacks model.embed_tokens.weight" in error and "copy the checkpoint again" in error
    path.write_bytes(whole)
    for name in ("identity.json", "model/config.json"):
        (run.checkpoint / name).write_text("{")
        error = refused(capsys, tmp_path / "out", run.checkpoint)
        assert f"{run.checkpoint / name}" in error and "copy the checkpoint again" in error


def test_a_base_that_is_not_the_runs_is_refused(
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
    assert f"it lacks {norm}" in error({name: start[name] for name in start if name != norm})
    rows = start | {"lm_head.weight": start["lm_head.weight"][:-1].clone()}
    assert "it holds lm_head.weight of shape (999, 64) instead of (1000, 64)" in error(rows)
    wider = error(start, intermediate_size=96)
    assert "layers.1.mlp.down_proj.weight of shape (64, 128) instead of (64, 96)" in wider
    assert "it lacks model.layers.2." in error(start, num_hidden_layers=3)
    assert "it lacks model.layers.0." in error(start, num_hidden_layers=1)
    assert "its weights were others" in error(start | {norm: start[norm] + 1})
    said = refused(capsys, tmp_path / "out", run.checkpoint, "--model", tmp_path / "none")
    assert "has no config.json" in said and "--model DIR" in said
    (run.base / "model.safetensors").unlink()
    assert f"{run.base} has no weights" in refused(capsys, tmp_path / "out", run.checkpoint)


def test_a_checkpoint_of_an_adapter_is_used_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    (folder / "manifest.json").touch()
    (folder / "adapter_model.safetensors").touch()
    assert cli.main(["convert", str(folder), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert f"{folder} holds an adapter" in error and "--adapter" in error
    assert not (tmp_path / "out").exists()
