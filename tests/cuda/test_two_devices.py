"""Two CUDA devices, over nccl, come to what one comes to, and what they hold is saved whole."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import run_ranks
from methods import ALONE, CELLS, IN_8BIT, SENTINELS, WHOLE_WEIGHTS, Cell
from recording import Trained, assert_every_rank_was_saved, fine_tune, reloaded_logits

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
]
SCRIPT = Path(__file__).parents[1] / "methods" / "method_ranks.py"
CHOSEN = [
    cell
    for cell in CELLS
    if cell.is_spread
    and cell.refused is None
    and (
        cell.method.name in ("LoRA", "all layers")
        or (cell.sharding, cell.quantization) == ("FULL_SHARD", WHOLE_WEIGHTS)
    )
]
# As in methods/test_methods_sharded.py, in steps of 1e-3; kernels for half the rows add up in
# another order too
LARGEST, MEAN = 2e-4, 1e-6
# whose first values are drawn, or decomposed, where the model is: on one device that is CUDA, with
# several the host
OF_ANOTHER_START = ("PiSSA", "LLaMA-Adapter")
PRECISION = {"dtype": "float32", "mixed_precision": False}
# logits of about 1, sums of some hundred float32 products
LOGITS = 1e-4


@pytest.fixture(scope="module")
def common(tiny_model: Path, grammar_data: Path) -> dict[str, Any]:
    """The flags of four steps in float32; the global batch is of four packed rows."""
    return {
        "model_name": str(tiny_model),
        "data_root": str(grammar_data),
        "dataset": "grammar_dataset",
        **PRECISION,
        "lr": 1e-3,
        "context_length": 64,
        "batch_size_training": 4,
        "num_epochs": 1,
        "max_train_step": 4,
        "num_workers_dataloader": 0,
        "run_validation": False,
    }


@pytest.fixture(scope="module")
def on_two_devices(
    common: dict[str, Any], environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("two-devices")
    trained = {str(cell): common | cell.flags | {"batch_size_training": 2} for cell in CHOSEN}
    sentinels = {
        f"sentinels-{cell.method}": common | cell.flags | {"batch_size_training": 1}
        for cell in CELLS
        if (cell.sharding, cell.quantization) == ("FULL_SHARD", WHOLE_WEIGHTS)
        and cell.method.name in SENTINELS
    }
    runs = {"trained": trained, "sentinels": sentinels, "half": {}}
    (folder / "runs.json").write_text(json.dumps(runs))
    run_ranks(SCRIPT, folder, ranks=2, env=environment, logs=tmp_path_factory.mktemp("logs"))
    return folder


@pytest.fixture(scope="module")
def on_one_device(
    common: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Cell], Trained]:
    runs: dict[str, Trained] = {}

    def run(cell: Cell) -> Trained:
        cell = Cell(cell.method, ALONE, cell.quantization)
        if str(cell) not in runs:
            output = tmp_path_factory.mktemp("one-device")
            fine_tune(common | cell.flags, output)
            runs[str(cell)] = Trained(output)
        return runs[str(cell)]

    return run


@pytest.mark.parametrize("cell", CHOSEN, ids=str)
def test_two_devices_train_what_one_trains(
    cell: Cell, on_one_device: Callable[[Cell], Trained], on_two_devices: Path, tiny_model: Path
) -> None:
    ours, theirs = Trained(on_two_devices / str(cell)), on_one_device(cell)
    assert ours.report == theirs.report
    assert ours.report["moved"] == ours.report["trained"] != []
    if cell.method.name not in OF_ANOTHER_START:
        assert_same_weights(ours.tensors, theirs.tensors, of=cell)
    again = reloaded_logits(cell, ours.saved, tiny_model, **PRECISION)
    atol = LOGITS * (10 if cell.quantization == IN_8BIT else 1)
    torch.testing.assert_close(again, ours.tensors["logits"], atol=atol, rtol=0)


def assert_same_weights(
    ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], of: Cell
) -> None:
    assert ours.keys() == theirs.keys()
    rate = of.method.flags.get("loraplus_lr_ratio", 1)
    if of.quantization == IN_8BIT:  # what goes into a layer is rounded by the largest of its row
        rate *= 8
    differences = [
        (tensor - theirs[name]).abs() for name, tensor in ours.items() if name != "logits"
    ]
    assert max(float(difference.max()) for difference in differences) < LARGEST * rate
    assert max(float(difference.mean()) for difference in differences) < MEAN * rate


@pytest.mark.parametrize("name", SENTINELS)
def test_what_each_device_holds_is_saved(name: str, on_two_devices: Path, tiny_model: Path) -> None:
    assert_every_rank_was_saved(on_two_devices / f"sentinels-{name}", 2, tiny_model)
