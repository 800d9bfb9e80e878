"""Two CUDA devices, over nccl, come to what one comes to, and what they hold is saved whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from methods import CELLS, IN_8BIT, PRECISION, SENTINELS, UNQUANTIZED, Cell
from recorded_runs import Trained, assert_every_rank_was_saved, reloaded_logits

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
]
CHOSEN = [
    cell
    for cell in CELLS
    if cell.is_spread
    and cell.refused is None
    and (
        cell.method.name in ("LoRA", "all layers")
        or (cell.sharding, cell.quantization) == ("FULL_SHARD", UNQUANTIZED)
    )
]
# As in test_methods_sharded.py, in steps of 1e-3; kernels for half the rows add up in
# another order too
LARGEST, MEAN = 2e-4, 1e-6
# whose first values are drawn, or decomposed, where the model is: on one device that is CUDA, with
# several the host
OF_ANOTHER_START = ("PiSSA", "LLaMA-Adapter")
# logits of about 1, sums of some hundred float32 products
LOGITS = 1e-4


@pytest.fixture(scope="module")
def on_two_devices(
    common: dict[str, Any], sentinels: dict[str, dict[str, Any]], launch: Callable[..., Path]
) -> Path:
    trained = {str(cell): common | cell.flags | {"batch_size_training": 2} for cell in CHOSEN}
    return launch(2, trained, sentinels, {})


@pytest.mark.parametrize("cell", CHOSEN, ids=str)
def test_two_devices_train_what_one_trains(
    cell: Cell, alone: Callable[[Cell], Trained], on_two_devices: Path, tiny_model: Path
) -> None:
    ours, theirs = Trained(on_two_devices / str(cell)), alone(cell)
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
