"""Sharded checkpoints become folders that plain transformers loads; pickles are never run."""

import builtins
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from convert_command import assert_same, convert, refused
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.metadata import Metadata
from torchrun import HELPERS, run_ranks

from llama_recipes_local.model_folders import save

pytestmark = pytest.mark.ranks

SCRIPT = HELPERS / "converting_ranks.py"


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


@pytest.mark.parametrize("kind", ["ours", "theirs", "ours-tied", "theirs-tied"])
def test_the_folder_has_the_model(
    kind: str,
    saved: Path,
    tiny_model: Path,
    tied_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(save, "SHARD_BYTES", 200_000)
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


def test_missing_parameters_are_refused_without_asking_on_the_console(
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
    assert "missing: model.layers.2." in error
    (other / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    error = refused(capsys, tmp_path / "out", checkpoint(saved, "ours"), "--model", other)
    assert "down_proj.weight of shape (64, 128) instead of (64, 96)" in error
    (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    error = refused(capsys, tmp_path / "out", checkpoint(saved, "ours"), "--model", other)
    assert "unexpected: model.layers.1." in error
    assert "not a sharded checkpoint" in refused(capsys, tmp_path / "out", tiny_model)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_model.safetensors").touch()
    assert "merge --adapter" in refused(capsys, tmp_path / "out", tmp_path / "adapter")


@pytest.mark.parametrize("kind", ["ours", "theirs"])
@pytest.mark.parametrize("harm", ["missing", "cut"])
def test_an_incomplete_checkpoint_is_refused(
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
    """Pickles that would run code: plainly, inside metadata, and through names that are allowed."""
    table = Metadata(state_dict_metadata={}, storage_data={}, planner_data=Bomb(folder))
    text = str(folder)
    path = f"X{chr(len(text))}\0\0\0{text}".encode()
    return {
        "plain": pickle.dumps(Bomb(folder)),
        "in metadata": pickle.dumps(table),
        "eval": b"cbuiltins\neval\n(X\x0e\0\0\0__import__('x')tR.",
        "old eval": b"c__builtin__\neval\n(X\x0e\0\0\0__import__('x')tR.",
        "a module of an allowed class": b"ctorch.serialization\nos.mkdir\n(" + path + b"tR.",
        "dots": b"\x80\x04\x8c\x07pathlib\x8c\x0fPosixPath.mkdir\x93(" + path + b"tR.",
    }


@pytest.mark.parametrize("disguise", disguises(Path("x")))
def test_a_pickle_bomb_in_the_metadata_is_never_run(
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
    assert "which such a file does not need" in error
    assert not mark.exists()


def test_metadata_that_points_out_of_its_folder_is_refused(
    saved: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(checkpoint(saved, "theirs"), tmp_path / "theirs")
    table = pickle.loads((folder / ".metadata").read_bytes())
    next(iter(table.storage_data.values())).relative_path = "../secret"
    (folder / ".metadata").write_bytes(pickle.dumps(table))
    (tmp_path / "secret").write_bytes(bytes(100_000))
    error = refused(capsys, tmp_path / "out", folder, "--model", tiny_model)
    assert "points out of its folder" in error and "../secret" in error


def test_a_pickle_bomb_in_the_tensors_is_never_run(
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


def test_an_embedding_with_rows_for_new_tokens_is_converted(
    saved: Path, tiny_model: Path, tmp_path: Path
) -> None:
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


def test_frequencies_that_old_transformers_saved_are_left_out(
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
