"""Runs of each kind are made again to the bit, and so are models that were made of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llama_recipes_local import cli, finetune

Replay = Callable[..., tuple[int, str]]
SHORT: dict[str, Any] = {
    "context_length": 64,
    "num_epochs": 1,
    "max_train_step": 2,
    "batch_size_training": 2,
    "max_eval_step": 2,
    "lr": 1e-3,
}
ROWS = [{"prompt": f"She go {i}.", "completion": f"She goes {i}."} for i in range(20)]


@pytest.fixture
def place(tmp_path: Path, grammar_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with data and settings, which paths are relative to."""
    (tmp_path / "数据").mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "数据/训练 集.jsonl").write_text(lines, "utf-8")
    (tmp_path / "settings.yaml").write_text("use_peft: true\nlr: 2e-3\nlora_config:\n  r: 4\n")
    (tmp_path / "datasets").symlink_to(grammar_data / "datasets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


KINDS: dict[str, dict[str, Any]] = {
    "all weights, packed, stopped early": {
        "batching_strategy": "packing",
        "dtype": "bfloat16",
        "save_steps": 1,
        "eval_steps": 1,
        "early_stopping_patience": 1,
        "early_stopping_threshold": 5.0,
        "max_train_step": 6,
    },
    "a mixture, by a file of settings": {
        "config": "settings.yaml",
        "dataset": "grammar_dataset:2,数据:1",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
def test_a_run_is_made_again_from_elsewhere(
    flags: dict[str, Any],
    place: Path,
    tiny_run: dict[str, Any],
    replay: Replay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finetune(**tiny_run | SHORT | {"data_root": ""} | flags, output_dir="run")
    monkeypatch.chdir("/")
    code, said = replay(place / "run")
    assert code == 0, said
    assert f"the same to the bit: {len(written(place / 'run'))} files" in said
    assert written(place / "run-replay") == written(place / "run")
    if "config" in flags:
        (place / "settings.yaml").write_text("use_peft: true\n")
        (place / "数据/更多.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
        code, said = replay(place / "run", "--check")
        assert code == 2
        assert f"{place / 'settings.yaml'} has other content" in said
        assert f"{place / '数据/更多.jsonl'} was not read" in said


def written(folder: Path) -> dict[str, str]:
    steps = json.loads((folder / "custody.json").read_text("utf-8"))["steps"]
    (files,) = (each["files"] for each in steps[-1]["results"].values())
    return files


@pytest.mark.slow
def test_a_resumed_run_is_made_again_without_its_interruption(
    place: Path, tiny_run: dict[str, Any], replay: Replay
) -> None:
    flags = tiny_run | SHORT | {"use_peft": True, "output_dir": "run"}
    finetune(**flags | {"max_train_step": 1, "save_steps": 1})
    finetune(**flags | {"resume_from_checkpoint": "auto", "save_steps": 2})
    code, said = replay("run")
    assert code == 0, said
    assert "before the run was resumed from checkpoint-1, other values were given for" in said
    assert "the same to the bit" in said


@pytest.mark.ranks
def test_a_run_on_two_ranks_is_made_again(
    place: Path, tiny_run: dict[str, Any], replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    flags = tiny_run | SHORT | {"enable_fsdp": True, "output_dir": "run"}
    finetune(num_processes=2, **flags)
    code, said = replay("run")
    assert code == 0, said
    assert "the same to the bit: 4 files" in said


@pytest.mark.slow
def test_a_run_of_sft_is_made_again(place: Path, tiny_model: Path, replay: Replay) -> None:
    pytest.importorskip("trl")
    from llama_recipes_local.commands.sft.command import main

    words = ["--model_name_or_path", str(tiny_model), "--dataset_name", "数据", "--use_peft"]
    words += ["--output_dir", "run", "--max_steps", "1", "--max_length", "64"]
    assert main(words) == 0
    code, said = replay("run", "--check", "--seed", "43")
    assert code == 2
    assert "--seed is" in said
    (place / "数据").rename(place / "moved")
    code, said = replay("run", "--check", "--dataset_name", "moved")
    assert code == 0, said
    assert replay("run", "--dataset_name", "moved")[0] == 0


@pytest.mark.slow
def test_exported_and_merged_models_are_made_again_from_the_base_model(
    place: Path, tiny_run: dict[str, Any], replay: Replay
) -> None:
    finetune(**tiny_run | SHORT | {"use_peft": True, "output_dir": "run"})
    assert cli.main(["merge", "--adapter", "run", "--out", "merged"]) == 0
    assert cli.main(["export", "--model_name", "merged", "--out", "gguf", "--type", "f16"]) == 0
    lora = ["--adapter", "run", "--format", "gguf-lora", "--out", "lora"]
    assert cli.main(["export", *lora]) == 0
    assert replay("lora", "--check")[0] == 0
    steps = json.loads((place / "gguf/custody.json").read_text("utf-8"))["steps"]
    assert [step["command"] for step in steps] == ["finetune", "merge", "export"]
    code, said = replay("gguf")
    assert code == 0, said
    assert "the same to the bit" in said
    name = steps[-1]["results"]["out"]["files"].keys() & {p.name for p in place.glob("gguf/*.gguf")}
    assert name
    content = bytearray((place / "merged/model.safetensors").read_bytes())
    content[-1] ^= 1
    (place / "merged/model.safetensors").write_bytes(content)
    code, said = replay("gguf", "--check")
    assert code == 2
    assert f"{place / 'merged/model.safetensors'} has other content" in said


@pytest.mark.slow
def test_converted_models_are_made_again_with_what_was_made_before_them(
    place: Path, tiny_run: dict[str, Any], replay: Replay
) -> None:
    finetune(**tiny_run | SHORT | {"output_dir": "run", "save_steps": 1})
    words = ["convert", "run/checkpoint-1", "--dtype", "bfloat16", "--out", "whole"]
    assert cli.main(words) == 0
    assert cli.main(["export", "--model_name", "whole", "--out", "gguf", "--type", "f16"]) == 0
    (file,) = place.glob("gguf/*.gguf")
    assert cli.main(["convert", str(file), "--out", "back"]) == 0
    steps = json.loads((place / "back/custody.json").read_text("utf-8"))["steps"]
    assert [step["command"] for step in steps] == ["finetune", "convert", "export", "convert"]
    assert any(name.startswith("model/") for name in steps[1]["inputs"]["checkpoint"]["files"])
    code, said = replay("back")
    assert code == 0, said
    assert "the same to the bit" in said
    other = shutil.copy(file, file.with_name("other.gguf"))
    assert cli.main(["convert", str(other), "--out", "alone"]) == 0
    steps = json.loads((place / "alone/custody.json").read_text("utf-8"))["steps"]
    assert [step["command"] for step in steps] == ["convert"]
    moved = file.rename(place / file.name)
    assert replay("back", "--check")[0] == 2
    assert replay("back", "--check", "--checkpoint", str(moved))[0] == 2  # of the first step too
    content = bytearray(moved.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    code, said = replay("back", "--check")
    assert code == 2
    assert f"{file} has other content" in said


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["shards", "pickle"])
def test_a_model_in_another_layout_is_converted_with_a_manifest(
    layout: str, tiny_model: Path, tmp_path: Path, replay: Replay
) -> None:
    folder, out = tmp_path / "other", str(tmp_path / "out")
    shutil.copytree(tiny_model, folder)
    weights = folder / "model.safetensors"
    if layout == "pickle":
        torch.save(load_file(weights), folder / "pytorch_model.bin")
        weights.unlink()
    else:
        weights.rename(folder / "model-00001-of-00001.safetensors")
    assert cli.main(["convert", str(folder), "--out", out]) == 0
    code, said = replay(out)
    assert code == 0, said
    path = next(each for each in folder.iterdir() if each.suffix in (".bin", ".safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    code, said = replay(out, "--check")
    assert code == 2
    assert f"{path} has other content" in said
    moved = folder.rename(tmp_path / "moved")
    code, said = replay(out, "--check", "--checkpoint", str(moved))
    assert f"{moved / path.name} has other content" in said


@pytest.mark.slow
def test_what_was_altered_before_it_was_merged_is_named(
    place: Path, tiny_run: dict[str, Any], replay: Replay, capsys: pytest.CaptureFixture[str]
) -> None:
    finetune(**tiny_run | SHORT | {"use_peft": True, "output_dir": "run"})
    content = bytearray((place / "run/adapter_model.safetensors").read_bytes())
    content[-2] ^= 1
    (place / "run/adapter_model.safetensors").write_bytes(content)
    assert cli.main(["merge", "--adapter", "run", "--out", "merged"]) == 0
    code, said = replay("merged", "--check")
    assert code == 2
    assert "that merge has read is not what finetune wrote" in said
    path = place / "run/custody.json"
    path.write_text(path.read_text("utf-8").replace('"seed": 42', '"seed": 43'), "utf-8")
    assert cli.main(["merge", "--adapter", "run", "--out", "again"]) == 2
    assert "custody.json was changed after it was written" in capsys.readouterr().err
    assert not (place / "again").exists()


@pytest.mark.slow
def test_code_of_the_user_is_only_run_if_a_flag_names_it(
    place: Path, tiny_run: dict[str, Any], replay: Replay
) -> None:
    source = "def get_custom_dataset(config, tokenizer, split):\n"
    source += "    ids = tokenizer('She goes.').input_ids\n"
    source += "    return [{'input_ids': ids, 'labels': ids, 'attention_mask': ids}] * 8\n"
    (place / "mine.py").write_text(source)
    own = {"dataset": "custom_dataset", "custom_dataset.file": "mine.py", "data_root": ""}
    finetune(**tiny_run | SHORT | own | {"use_peft": True, "output_dir": "run"})
    code, said = replay("run")
    assert code == 2
    assert "--custom_dataset.file is not given" in said
    code, said = replay("run", "--custom_dataset.file", "mine.py")
    assert code == 0, said
    shutil.rmtree(place / "run-replay")
    (place / "mine.py").write_text(source.replace("8", "9"))
    code, said = replay("run", "--custom_dataset.file", "mine.py")
    assert code == 2
    assert f"{place / 'mine.py'} has other content" in said
