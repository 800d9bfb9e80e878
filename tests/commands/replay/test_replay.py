"""A result is compared with its manifest, and made again to the bit."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from llama_recipes_local import finetune
from llama_recipes_local.custody import software_facts

pytestmark = pytest.mark.slow
Replay = Callable[..., tuple[int, str]]
SHORT: dict[str, Any] = {
    "context_length": 64,
    "num_epochs": 1,
    "max_train_step": 2,
    "batch_size_training": 2,
    "batching_strategy": "padding",
    "max_eval_step": 2,
    "lr": 1e-3,
}


@pytest.fixture(scope="module")
def trained(
    tiny_model: Path,
    grammar_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with a model, data, and a run on them."""
    folder = tmp_path_factory.mktemp("custody")
    shutil.copytree(tiny_model, folder / "model")
    shutil.copytree(grammar_data, folder / "root")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        finetune(
            model_name="model",
            data_root="root",
            dataset="grammar_dataset",
            use_peft=True,
            output_dir="run",
            num_workers_dataloader=0,
            save_steps=1,
            **SHORT,
        )
    return folder


@pytest.fixture
def copy(trained: Path) -> Iterator[Path]:
    """The run's folder and its inputs, to be changed and put back after the test."""
    kept = trained.with_name(f"{trained.name}-kept")
    shutil.copytree(trained, kept)
    yield trained
    shutil.rmtree(trained)
    kept.rename(trained)


def test_an_untouched_run_is_made_again_to_the_bit(
    trained: Path, replay: Replay, tmp_path: Path
) -> None:
    code, said = replay(trained / "run", "--out", tmp_path / "again")
    assert code == 0, said
    assert "the same to the bit" in said
    for name in ("adapter_model.safetensors", "checkpoint-2/adapter_model.safetensors"):
        first, second = (load_file(each / name) for each in (trained / "run", tmp_path / "again"))
        assert first.keys() == second.keys()
        assert all(first[key].equal(second[key]) for key in first)


def change_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


INPUTS = {
    "a byte of the weights": "model/model.safetensors",
    "a byte of the tokenizer": "model/tokenizer.json",
    "a byte of the data": "root/datasets/grammar/gtrain_10k.csv",
    "a byte of the result": "run/adapter_model.safetensors",
    "a byte of a checkpoint": "run/checkpoint-1/adapter_model.safetensors",
}


@pytest.mark.parametrize("name", INPUTS.values(), ids=INPUTS)
def test_a_changed_byte_is_named(name: str, copy: Path, replay: Replay) -> None:
    change_byte(copy / name)
    code, said = replay(copy / "run", "--check")
    assert code == 2
    assert "1 problem found" in said
    assert str(copy / name) in said


def test_a_file_with_another_time_is_the_same(copy: Path, replay: Replay) -> None:
    for name in INPUTS.values():
        (copy / name).touch()
    code, said = replay(copy / "run", "--check")
    assert code == 0, said


@pytest.mark.parametrize("name", INPUTS.values(), ids=INPUTS)
def test_a_removed_file_is_named(name: str, copy: Path, replay: Replay) -> None:
    (copy / name).unlink()
    code, said = replay(copy / "run", "--check")
    assert code == 2
    assert str(copy / name) in said


def test_a_further_file_of_the_model_is_named(copy: Path, replay: Replay) -> None:
    (copy / "model/chat_template.jinja").write_text("{{ messages }}")
    code, said = replay(copy / "run", "--check")
    assert code == 2
    assert f"{copy / 'model/chat_template.jinja'} was not read" in said


@pytest.mark.parametrize(
    "name",
    [
        *("chat_template.jinja", "additional_chat_templates/tool_use.jinja"),
        *("adapter_model.bin", "tokenizer.json"),
    ],
)
def test_a_further_file_of_the_result_is_named(name: str, copy: Path, replay: Replay) -> None:
    path = copy / "run" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    code, said = replay(copy / "run", "--check")
    assert code == 2
    assert f"{copy / 'run' / name} is not what finetune has written" in said


def test_a_moved_folder_is_named_and_found_by_its_flag(copy: Path, replay: Replay) -> None:
    (copy / "model").rename(copy / "elsewhere")
    code, said = replay(copy / "run", "--check")
    assert code == 2
    assert f"{copy / 'model'} has none" in said
    assert "--model_name" in said
    code, said = replay(copy / "run", "--check", "--model_name", copy / "elsewhere")
    assert code == 0, said


def test_a_moved_run_with_its_inputs_is_made_again(copy: Path, replay: Replay) -> None:
    for name in ("model", "root", "run"):
        (copy / name).rename(copy / f"moved-{name}")
    places = ["--model_name", copy / "moved-model", "--data_root", copy / "moved-root"]
    code, said = replay(copy / "moved-run", *places, "--out", copy / "again")
    assert code == 0, said
    assert "the same to the bit" in said


def test_another_version_is_named(
    trained: Path, replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["transformers"], "__version__", "4.0.0")
    code, said = replay(trained / "run", "--check")
    assert code == 2
    assert "1. transformers is 4.0.0 (installed: " in said


def test_other_code_is_named(
    trained: Path, replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(software_facts, "code_hash", lambda: "0" * 64)
    code, said = replay(trained / "run", "--check")
    assert code == 2
    assert "1. the code of llama_recipes_local is" in said


def test_another_installed_version_is_named(
    trained: Path, replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = importlib.metadata.version
    versions = {"numpy": "1.0"}
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: versions.get(name) or original(name)
    )
    code, said = replay(trained / "run", "--check")
    assert code == 2
    assert "1. numpy is 1.0, and was " in said
    assert "pip install numpy==" in said


@pytest.mark.parametrize("flag", [("--seed", "43"), ("--lr", "1e-4"), ("--r", "4")])
def test_another_flag_is_named(flag: tuple[str, str], trained: Path, replay: Replay) -> None:
    code, said = replay("--check", trained / "run", *flag)
    assert code == 2
    assert f"1. {flag[0]} is " in said


def test_a_seed_that_was_changed_in_the_record_is_named(copy: Path, replay: Replay) -> None:
    path = copy / "run/run_config.json"
    path.write_text(path.read_text().replace('"seed": 42', '"seed": 43'))
    code, said = replay(copy / "run", "--check")
    assert code == 2
    assert f"1. seed in {path} is 43, and was 42" in said


def test_a_manifest_that_was_edited_is_refused(copy: Path, replay: Replay) -> None:
    path = copy / "run/custody.json"
    path.write_text(path.read_text().replace('"seed": 42', '"seed": 43'))
    code, said = replay(copy / "run", "--check")
    assert code == 2
    assert f"1. {path} was changed after it was written" in said
    assert "seed in" in said


def test_everything_is_in_one_report(copy: Path, replay: Replay) -> None:
    (copy / "run/run_config.json").write_text("{")
    change_byte(copy / "model/tokenizer.json")
    code, said = replay(copy / "run", "--chek")
    assert code == 2
    for part in ("run_config.json is not the record", "tokenizer.json has", "did you mean --check"):
        assert part in said


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1, "steps": [{}]}'])
def test_a_torn_manifest_is_refused(text: str, copy: Path, replay: Replay) -> None:
    (copy / "run/custody.json").write_text(text)
    code, said = replay(copy / "run")
    assert code == 2
    assert f"1. {copy / 'run/custody.json'} is not the manifest of a result" in said
    assert "pop" not in said


def test_a_run_of_an_older_version_has_none(copy: Path, replay: Replay) -> None:
    (copy / "run/custody.json").unlink()
    code, said = replay(copy / "run")
    assert code == 2
    assert f"1. {copy / 'run'} has no custody.json" in said
    assert f"--config {copy / 'run/run_config.json'}" in said


def test_the_result_that_differs_is_named(
    trained: Path, replay: Replay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from llama_recipes_local.model_checkpointing import checkpoint_handler

    original = checkpoint_handler.adapter_state
    monkeypatch.setattr(
        checkpoint_handler,
        "adapter_state",
        lambda model: {name: each + 1e-6 for name, each in original(model).items()},
    )
    code, said = replay(trained / "run", "--out", tmp_path / "again")
    assert code == 1
    assert "adapter_model.safetensors: other content" in said


def test_a_result_is_signed_once_nothing_differs(copy: Path, replay: Replay) -> None:
    key = copy / "key"
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "one", "-f", str(key)]
    subprocess.run(make, check=True)
    change_byte(copy / "model/tokenizer.json")
    assert replay(copy / "run", "--check", "--sign", key)[0] == 2
    assert not (copy / "run/custody.json.sig").exists()
    change_byte(copy / "model/tokenizer.json")
    code, said = replay(copy / "run", "--check", "--sign", key)
    assert code == 0, said
    (copy / "allowed").write_text(f"one {(copy / 'key.pub').read_text()}")
    code, said = replay("--check", copy / "run", "--allowed_signers", copy / "allowed")
    assert code == 0, said
    assert "signed by one" in said


def test_the_manifest_is_documented_json(trained: Path) -> None:
    content = json.loads((trained / "run/custody.json").read_text())
    (step,) = content["steps"]
    assert step["command"] == "finetune"
    assert step["settings"]["train_config"]["seed"] == 42
    assert step["inputs"].keys() == {"model_name", "train data", "validation data"}
    assert "torch" in step["packages"]
    assert step["machine"]["ranks"] == 1
