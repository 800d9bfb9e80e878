"""Weights may be links to where a model's other files are, and to the Hub's cache: nowhere else."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llama_recipes_local.model_folders.adapter_files import check_adapter_files
from llama_recipes_local.model_folders.weight_files import check_weights, unreadable

WEIGHTS = "model.safetensors"
SHARD = "model-00001-of-00001.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"a": torch.zeros(1)}, folder / WEIGHTS)
    return folder


def elsewhere(model: Path) -> None:
    (model.parent / "private").mkdir()
    (model / WEIGHTS).rename(model.parent / "private" / "x")
    (model / WEIGHTS).symlink_to("../private/x")


def a_shard_elsewhere(model: Path) -> None:
    (model / WEIGHTS).rename(model.parent / "x")
    (model / SHARD).symlink_to(model.parent / "x")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": SHARD}}))


def in_a_folder_above(model: Path) -> None:
    (model / WEIGHTS).rename(model.parent / "y")
    (model.parent / "x").symlink_to("y")
    (model / WEIGHTS).symlink_to("../x")


@pytest.mark.parametrize("link", [elsewhere, a_shard_elsewhere, in_a_folder_above])
def test_a_link_out_of_the_folder_is_refused(link: Callable[[Path], None], model: Path) -> None:
    link(model)
    (problem,) = check_weights(model)
    assert "outside the model's folder" in problem.what
    assert str(model.parent.resolve()) in problem.what


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "sub/x"])
def test_an_index_may_not_lead_out(name: str, model: Path) -> None:
    name = name.replace("/x", f"{model.parent}/x", 1) if name.startswith("/") else name
    (model / WEIGHTS).rename(model.parent / "x")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    (problem,) = check_weights(model)
    assert "it names files outside the folder" in problem.why


def test_an_adapters_weights_may_not_lead_out(model: Path) -> None:
    (model / "adapter_config.json").write_text("{}")
    (model / WEIGHTS).rename(model.parent / "x")
    (model / "adapter_model.safetensors").symlink_to("../x")
    (problem,) = check_adapter_files(model, "--adapter", "")
    assert "outside the model's folder" in problem.what


def a_farm_of_links(model: Path) -> Path:
    (farm := model.parent / "farm").mkdir()
    for path in model.iterdir():
        (farm / path.name).symlink_to(path)
    return farm


def a_link_to_the_folder(model: Path) -> Path:
    (model.parent / "link").symlink_to(model)
    return model.parent / "link"


def a_link_within(model: Path) -> Path:
    (model / WEIGHTS).rename(model / "real.safetensors")
    (model / WEIGHTS).symlink_to("real.safetensors")
    return model


def the_hubs_cache(model: Path) -> Path:
    snapshot = model.parent / "models--a--b/snapshots/0123"
    snapshot.mkdir(parents=True)
    blobs = model.parent / "models--a--b/blobs"
    blobs.mkdir()
    for number, path in enumerate(model.iterdir()):
        shutil.move(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    return snapshot


def an_edited_configuration_in_the_hubs_cache(model: Path) -> Path:
    snapshot = the_hubs_cache(model)
    text = (snapshot / "config.json").read_text()
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").write_text(text)
    return snapshot


@pytest.mark.parametrize(
    "arrange",
    [
        a_farm_of_links,
        a_link_to_the_folder,
        a_link_within,
        the_hubs_cache,
        an_edited_configuration_in_the_hubs_cache,
    ],
)
def test_usual_links_are_followed(arrange: Callable[[Path], Path], model: Path) -> None:
    assert check_weights(arrange(model)) == []


def test_weights_that_this_user_may_not_read_are_not_said_to_be_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """safetensors says that there is no such file; root may read all, so the answer is given."""
    path = tmp_path / "model.safetensors"
    path.touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    problem = unreadable(path, FileNotFoundError("No such file or directory"))
    assert problem.what == f"{path} cannot be read" and problem.why == "permission denied"
