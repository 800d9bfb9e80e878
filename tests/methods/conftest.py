"""Each method, trained once on one device and once in each sharding."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from methods import (
    ALONE,
    IN_HALF,
    PRECISION,
    SENTINELS,
    TRAINED_ALONE,
    TRAINED_SPREAD,
    UNQUANTIZED,
    Cell,
)
from recorded_runs import Trained, fine_tune
from shared_fixtures import one_thread  # noqa: F401 for all tests of this room
from torchrun import HELPERS, run_ranks

SCRIPT = HELPERS / "method_ranks.py"


@pytest.fixture(scope="session")
def common(tiny_run: dict[str, Any]) -> dict[str, Any]:
    """The flags of four steps in float32; the global batch is of four packed rows."""
    return {
        **tiny_run,
        **PRECISION,
        "lr": 1e-3,
        "context_length": 64,
        "batch_size_training": 4,
        "num_epochs": 1,
        "max_train_step": 4,
        "run_validation": False,
    }


@pytest.fixture(scope="session")
def alone(
    common: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Cell], Trained]:
    """Runs in this process, each cell of one device when first requested."""
    runs: dict[str, Trained] = {}

    def run(cell: Cell) -> Trained:
        cell = replace(cell, sharding=ALONE)
        if str(cell) not in runs:
            output = tmp_path_factory.mktemp("alone")
            fine_tune(common | cell.flags, output)
            runs[str(cell)] = Trained(output)
        return runs[str(cell)]

    return run


@pytest.fixture(scope="session")
def launch(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Runs ``method_ranks.py`` on several ranks; returns the folder of their output."""

    def run(
        ranks: int,
        trained: dict[str, Any],
        sentinels: dict[str, Any],
        half: dict[str, Any],
    ) -> Path:
        folder = tmp_path_factory.mktemp(f"ranks-{ranks}")
        runs = {"trained": trained, "sentinels": sentinels, "half": half}
        (folder / "runs.json").write_text(json.dumps(runs))
        logs = tmp_path_factory.mktemp("logs")
        run_ranks(SCRIPT, folder, ranks=ranks, env=environment, logs=logs)
        return folder

    return run


@pytest.fixture(scope="session")
def sentinels(common: dict[str, Any]) -> dict[str, dict[str, Any]]:
    chosen = [cell for cell in TRAINED_ALONE if str(cell).endswith(UNQUANTIZED)]
    return {
        f"sentinels-{cell.method}": common | cell.flags | {"batch_size_training": 1}
        for cell in chosen
        if cell.method.name in SENTINELS
    }


@pytest.fixture(scope="session")
def on_two_ranks(
    common: dict[str, Any], sentinels: dict[str, dict[str, Any]], launch: Callable[..., Path]
) -> Path:
    trained = {
        str(cell): common | cell.flags | {"batch_size_training": 2} for cell in TRAINED_SPREAD
    }
    half = {
        f"half-{cell.method}": common | cell.flags | {"batch_size_training": 2} for cell in IN_HALF
    }
    return launch(2, trained, sentinels, half)


@pytest.fixture(scope="session")
def spread(on_two_ranks: Path) -> Callable[[Cell], Trained]:
    """What is trained on two ranks."""
    return lambda cell: Trained(on_two_ranks / str(cell))
