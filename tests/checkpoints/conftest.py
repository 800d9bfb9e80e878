"""Flags and saved runs that the tests of interrupted runs start from."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import STEPS, Runs


@pytest.fixture(scope="session")
def full(
    tiny_model: Path, tiny_run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The flags of twelve steps that train every weight, with dropout, validated each epoch."""
    folder = tmp_path_factory.mktemp("models") / "dropping"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((tiny_model / "config.json").read_text()) | {"attention_dropout": 0.1}
    (folder / "config.json").write_text(json.dumps(config))
    return {
        **tiny_run,
        "model_name": str(folder),
        "batching_strategy": "padding",
        "attn_implementation": "sdpa",
        "context_length": 128,
        "num_epochs": 2,
        "max_eval_step": 5,
        "lr": 1e-3,
        "scheduler": "cosine",
        "warmup_steps": 3,
        "gradient_clipping": True,
        "save_steps": 5,
    }


@pytest.fixture(scope="session")
def lora(full: dict[str, Any]) -> dict[str, Any]:
    """The same with LoRA, whose inputs are dropped too."""
    return full | {"use_peft": True, "lora_dropout": 0.1}


@pytest.fixture(scope="session")
def quantized(lora: dict[str, Any]) -> dict[str, Any]:
    """The same on weights of 4 bits."""
    return lora | {"quantization": "4bit"}


@pytest.fixture(scope="session")
def saved(runs: Runs, lora: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run with a checkpoint at each of its last two steps."""
    output = tmp_path_factory.mktemp("saved")
    ended = runs(output, lora | {"save_steps": 11})
    assert ended.codes == [0], ended.logs
    assert ended.checkpoints == [11, STEPS]
    return output


@pytest.fixture
def output(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "output"))
