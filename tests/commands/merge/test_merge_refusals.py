"""``merge`` refuses what it cannot do before anything is written."""

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from llama_recipes_local import cli
from llama_recipes_local.model_folders import output_folder, safetensors_format

FILE = "adapter_model.safetensors"


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "base")


@pytest.fixture(scope="module")
def saved(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter before training."""
    folder = tmp_path_factory.mktemp("adapters") / "lora"
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(model, config).save_pretrained(str(folder))
    return folder


@pytest.fixture
def adapter(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "adapter")


@pytest.fixture
def refused(
    adapter: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Merges the adapter into the base model with the given flags; returns the error's text.

    The exit code is 2, and nothing is left next to what was to be written.
    """

    def run(*words: object, model: bool = True) -> str:
        capsys.readouterr()
        named = ("--model", base) if model else ()
        words = ("merge", "--adapter", adapter, *named, "--out", tmp_path / "out", *words)
        assert cli.main([*map(str, words)]) == 2
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".out*"))
        return capsys.readouterr().err

    return run


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("kind", ["PREFIX_TUNING", "ADAPTION_PROMPT"])
def test_an_adapter_that_does_not_change_weights_is_refused(
    kind: str, adapter: Path, refused: Callable[..., str]
) -> None:
    change(adapter / "adapter_config.json", peft_type=kind)
    error = refused()
    assert kind in error and "cannot be merged" in error
    assert f"generate --adapter {adapter}" in error


@pytest.mark.parametrize("init", ["pissa_niter_4", "olora", "corda", "loftq"])
def test_an_initialisation_that_changed_the_base_model_is_refused(
    init: str, adapter: Path, refused: Callable[..., str]
) -> None:
    change(adapter / "adapter_config.json", init_lora_weights=init)
    error = refused()
    assert f"init_lora_weights={init}" in error


@pytest.mark.parametrize(
    ("field", "value"), [("layer_replication", [[0, 2], [1, 2]]), ("alora_invocation_tokens", [5])]
)
def test_lora_that_does_more_than_change_weights_is_refused(
    field: str, value: Any, adapter: Path, base: Path, refused: Callable[..., str]
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    options = {"r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", field: value}
    peft.get_peft_model(model, peft.LoraConfig(**options)).save_pretrained(str(adapter))
    error = refused()
    assert f"has {field}, which cannot be merged" in error
    assert f"generate --adapter {adapter}" in error


@pytest.mark.parametrize("changes", [{"r": "four"}, {"target_modules": 5}, {"rank_pattern": None}])
def test_a_configuration_with_wrong_types_is_refused(
    changes: dict[str, Any], adapter: Path, refused: Callable[..., str]
) -> None:
    change(adapter / "adapter_config.json", **changes)
    error = refused()
    assert f"{adapter / 'adapter_config.json'} is not a PEFT configuration" in error


def test_numbers_that_are_none_are_refused(adapter: Path, refused: Callable[..., str]) -> None:
    change(adapter / "adapter_config.json", lora_alpha=float("nan"))
    assert "is not a PEFT configuration" in (error := refused()) and "NaN for a number" in error


def test_matrices_in_integers_are_refused(adapter: Path, refused: Callable[..., str]) -> None:
    """PEFT adds them without the scale that they were rounded with."""
    tensors = load_file(adapter / FILE)
    save_file({name: each.to(torch.int8) for name, each in tensors.items()}, adapter / FILE)
    assert "not floats" in (error := refused()) and "lora_A.weight is I8" in error


def test_a_base_model_that_is_not_named_is_not_taken_from_the_working_directory(
    adapter: Path, base: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    change(adapter / "adapter_config.json", base_model_name_or_path=None)
    monkeypatch.chdir(base)
    error = refused(model=False)
    assert "does not name its base model" in error and "--model DIR" in error


def test_a_tokenizer_folder_without_a_tokenizer_is_refused(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    error = refused("--tokenizer_name", tmp_path / "gone")
    assert f"{tmp_path / 'gone'} has no tokenizer" in error


def test_a_missing_tokenizer_is_asked_for(
    adapter: Path, base: Path, refused: Callable[..., str]
) -> None:
    for path in base.glob("tokenizer*"):
        path.unlink()
    change(adapter / "adapter_config.json", base_model_name_or_path="/no/such/model")
    error = refused()
    assert f"{base} has no tokenizer" in error and "--tokenizer_name DIR" in error


def test_a_base_model_that_has_moved_is_asked_for(
    adapter: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    gone = tmp_path / "gone"
    change(adapter / "adapter_config.json", base_model_name_or_path=str(gone))
    error = refused(model=False)
    assert str(gone) in error and "--model DIR" in error


@pytest.mark.parametrize("wrong", ["no file", "pickle", "cut", "no config", "a list"])
def test_an_incomplete_adapter_is_refused(
    wrong: str, adapter: Path, refused: Callable[..., str]
) -> None:
    named = adapter / FILE
    if wrong == "no file":
        named.unlink()
    elif wrong == "pickle":
        named.rename(adapter / "adapter_model.bin")
    elif wrong == "cut":
        named.write_bytes(named.read_bytes()[:-10])
    else:
        named = adapter / "adapter_config.json"
        named.unlink() if wrong == "no config" else named.write_text("[]")
    error = refused()
    assert named.name in error


def test_an_adapter_of_another_model_is_refused(
    adapter: Path, base: Path, refused: Callable[..., str]
) -> None:
    tensors = load_file(adapter / FILE)
    first, second = sorted(tensors)[:2]
    for changed, said in (
        ({name: tensors[name] for name in tensors if name != first}, f"missing: {first}"),
        (tensors | {"base_model.model.more.weight": torch.ones(1)}, "base_model.model.more.weight"),
        (tensors | {second: torch.ones(4, 3)}, f"{second} of shape (4, 3) instead of"),
    ):
        save_file(changed, adapter / FILE)
        error = refused()
        assert said in error and "is not compatible with the base model" in error
    change(adapter / "adapter_config.json", target_modules=["no_such_layer"])
    assert "no_such_layer" in refused()


def test_an_incomplete_base_model_is_refused(base: Path, refused: Callable[..., str]) -> None:
    path = base / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"lm_head.weight": torch.ones(2, 2)}, path)
    assert "lm_head.weight of shape (2, 2)" in refused()
    del tensors["lm_head.weight"]
    save_file(tensors, path)
    assert "missing: lm_head.weight" in refused()
    path.write_bytes(path.read_bytes()[:-1])
    assert str(path) in refused()
    path.rename(base / "pytorch_model.bin")
    assert "a pickle" in refused()
    (base / "config.json").unlink()
    assert "has no config.json" in refused()


def test_a_folder_that_is_not_empty_is_refused(
    adapter: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/diary.txt").write_text("dear diary")
    words = ("--adapter", adapter, "--model", base, "--out")
    assert cli.main(["merge", *map(str, (*words, tmp_path / "full"))]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert (tmp_path / "full/diary.txt").read_text() == "dear diary"
    assert cli.main(["merge", *map(str, (*words, tmp_path / "full/diary.txt"))]) == 2
    assert "is a file" in capsys.readouterr().err


def test_too_little_free_space_is_refused(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 4, 5))
    said = refused()
    assert "not enough disk space" in said and "kB are free" not in said.replace("0.0 kB", "")


def test_a_merge_that_fails_publishes_nothing(
    adapter: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors_format, "copy_auxiliary_files", fail)
    words = ("merge", "--adapter", adapter, "--model", base, "--out", tmp_path / "out")
    assert cli.main([*map(str, words)]) == 130
    assert "stopped by Ctrl-C" in capsys.readouterr().err
    assert not list(tmp_path.glob("*out*"))


def test_a_full_disk_leaves_nothing(
    adapter: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(output_folder, "SPARE_BYTES", 0)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        words = ("merge", "--adapter", adapter, "--model", base, "--out", tmp_path / "out")
        code = cli.main([*map(str, words)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert code == 1
    error = capsys.readouterr().err
    assert "stopped: a file may not become that large" in error and "`ulimit -f`" in error
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("kind", ["below a file", "read-only", "a disk's root"])
def test_a_folder_that_cannot_be_written_is_refused(
    kind: str,
    adapter: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, said = tmp_path / "out", "cannot be written"
    if kind == "below a file":
        out = base / "config.json/merged"
    elif kind == "read-only":  # root may write where nobody may, so the question is answered here
        monkeypatch.setattr(output_folder.os, "access", lambda _, mode: not mode & os.W_OK)
    else:
        monkeypatch.setattr(Path, "is_mount", lambda path: path == out)
        said = "cannot be replaced"
    words = ("merge", "--adapter", adapter, "--model", base, "--out", out)
    assert cli.main([*map(str, words)]) == 2
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_a_folder_whose_name_is_too_long_is_refused(
    adapter: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("merge", "--adapter", adapter, "--model", base, "--out", tmp_path / ("n" * 300))
    with pytest.raises(SystemExit, match="2"):
        cli.main([*map(str, words)])
    assert "argument --out: the path has a name of 300 bytes" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]
