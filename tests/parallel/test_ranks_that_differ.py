"""Two processes that were given different things are refused, each difference by its name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import Runs
from safetensors.torch import load_file, save_file

Last = dict[str, Any]


@pytest.fixture(scope="module")
def flags(tiny_run: dict[str, Any]) -> dict[str, Any]:
    return tiny_run | {"use_peft": True, "context_length": 128, "max_train_step": 2}


def with_other_data(flags: dict[str, Any], folder: Path) -> Last:
    root = Path(shutil.copytree(flags["data_root"], folder / "root"))
    path = root / "datasets/grammar/gtrain_10k.csv"
    lines = path.read_text("utf-8-sig").splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[:0:-1]), "utf-8-sig")
    return {"flags": {"data_root": str(root)}}


def with_other_weights(flags: dict[str, Any], folder: Path) -> Last:
    model = Path(shutil.copytree(flags["model_name"], folder / "model"))
    weights = load_file(model / "model.safetensors")
    larger = {name: weight * 1.5 for name, weight in weights.items()}
    save_file(larger, model / "model.safetensors", {"format": "pt"})
    return {"flags": {"model_name": str(model)}}


def with_other_config(flags: dict[str, Any], folder: Path) -> Last:
    model = Path(shutil.copytree(flags["model_name"], folder / "model"))
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rms_norm_eps": 1e-3}))
    return {"flags": {"model_name": str(model)}}


def with_other_tokenizer(flags: dict[str, Any], folder: Path) -> Last:
    model = Path(shutil.copytree(flags["model_name"], folder / "model"))
    path = model / "tokenizer.json"
    found = json.loads(path.read_text())
    found["model"]["merges"].pop()
    path.write_text(json.dumps(found))
    return {"flags": {"model_name": str(model)}}


def with_flag(name: str, value: object) -> Callable[[dict[str, Any], Path], Last]:
    return lambda flags, folder: {"flags": {name: value}}


def with_patch(name: str, value: object) -> Callable[[dict[str, Any], Path], Last]:
    return lambda flags, folder: {"patches": {name: value}}


@pytest.mark.parametrize(
    ("differ", "named"),
    [
        (with_flag("seed", 7), "ranks differ in --seed\n   why: rank 0 has 42; rank 1 has 7\n"),
        (with_flag("lr", 0.01), "ranks differ in --lr\n   why: rank 0 has 0.0001; "),
        (with_flag("context_length", 64), "ranks differ in --context_length"),
        (with_flag("save_steps", 3), "ranks differ in --save_steps"),
        (with_flag("output_dir", "elsewhere"), "ranks differ in --output_dir"),
        (with_flag("quantization", "4bit"), "ranks differ in --quantization"),
        (with_flag("nonsense", 1), "unknown flag --nonsense"),
        (with_flag("lora_config.r", 4), "ranks differ in --lora_config.r"),
        (with_other_data, "ranks differ in the training data"),
        (with_other_weights, "ranks differ in the weights of --model_name"),
        (with_other_config, "ranks differ in config.json of --model_name"),
        (with_other_tokenizer, "ranks differ in the tokenizer"),
        (with_patch("preflight.rank_facts:_code_hash", "f" * 40), "differ in the code of llama_"),
        (with_patch("preflight.rank_facts:_version", "0.0.1"), "differ in the version of numpy"),
    ],
)
def test_a_difference_is_named_and_ends_all_ranks(
    runs: Runs,
    flags: dict[str, Any],
    differ: Callable[[dict[str, Any], Path], Last],
    named: str,
    tmp_path: Path,
) -> None:
    last = differ(flags, tmp_path)
    ended = runs(tmp_path / "output", flags, ranks=2, last=last)
    assert ended.codes == [2, 2], ended.logs
    for log in ended.logs:
        assert named in log
        assert "Traceback" not in log
        assert "Error" not in log
    assert not list((tmp_path / "output").glob("*.safetensors"))
