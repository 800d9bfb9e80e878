"""Each method trained alone and spread over ranks, each way once."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import run_ranks
from methods import ADAPTER, METHODS, SENTINELS, SHARDINGS, SPREAD, Method
from recording import REPORT, TENSORS, fine_tune
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("method_ranks.py")
GLOBAL_BATCH = 4


@dataclass
class Trained:
    """What a run left."""

    output: Path

    @property
    def report(self) -> dict[str, list[str]]:
        return json.loads((self.output / REPORT).read_text())

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        return load_file(self.output / TENSORS)

    @property
    def saved(self) -> Path:
        """The folder of what was saved, adapter or model."""
        (weights,) = self.output.rglob("*model.safetensors")
        return weights.parent


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute in one thread, as each rank does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def flags_of(tiny_model: Path, grammar_data: Path) -> Callable[..., dict[str, Any]]:
    """The flags of four steps of a method, in float32, on so many ranks."""

    def flags(method: Method, ranks: int = 1) -> dict[str, Any]:
        return {
            "model_name": str(tiny_model),
            "data_root": str(grammar_data),
            "dataset": "grammar_dataset",
            "lr": 1e-3,
            "context_length": 64,
            "batch_size_training": GLOBAL_BATCH // ranks,
            "num_epochs": 1,
            "max_train_step": 4,
            "num_workers_dataloader": 0,
            "run_validation": False,
            **method.flags,
            **method.small,
        }

    return flags


@pytest.fixture(scope="session")
def alone(
    flags_of: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Method], Trained]:
    """Methods trained in this process, each when it is first asked for."""
    runs: dict[str, Trained] = {}

    def run(method: Method) -> Trained:
        if method.name not in runs:
            output = tmp_path_factory.mktemp("alone")
            fine_tune(flags_of(method), output)
            runs[method.name] = Trained(output)
        return runs[method.name]

    return run


@pytest.fixture(scope="session")
def launch(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Runs ``method_ranks.py`` on several ranks; returns the folder of what they left."""

    def run(ranks: int, trained: dict[str, Any], sentinels: dict[str, Any]) -> Path:
        folder = tmp_path_factory.mktemp(f"ranks-{ranks}")
        runs = {"trained": trained, "sentinels": sentinels}
        (folder / "runs.json").write_text(json.dumps(runs))
        logs = tmp_path_factory.mktemp("logs")
        run_ranks(SCRIPT, folder, ranks=ranks, env=environment, logs=logs)
        return folder

    return run


@pytest.fixture(scope="session")
def sentinels(flags_of: Callable[..., dict[str, Any]]) -> dict[str, dict[str, Any]]:
    chosen = [method for method in METHODS if method.name in SENTINELS]
    return {f"sentinels-{method}": flags_of(method, 2) for method in chosen}


@pytest.fixture(scope="session")
def two_ranks(
    flags_of: Callable[..., dict[str, Any]],
    sentinels: dict[str, dict[str, Any]],
    launch: Callable[..., Path],
) -> Callable[[Method, str], Trained]:
    """Methods trained on two ranks, by method and sharding."""
    full = {"checkpoint_type": "FULL_STATE_DICT"}
    trained = {
        f"{method}-{sharding}": flags_of(method, 2)
        | SHARDINGS[sharding]
        | ({} if method.saves == ADAPTER else full)
        for method in METHODS
        for sharding in SPREAD
    }
    folder = launch(2, trained, sentinels)

    def run(method: Any, sharding: str) -> Trained:
        return Trained(folder / f"{method}-{sharding}")

    run.folder = folder  # type: ignore[attr-defined]
    return run
