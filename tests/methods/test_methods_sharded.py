"""Each method with each sharding at two ranks comes to what one process comes to, and is saved."""

from pathlib import Path
from typing import Any

import pytest
import torch
from methods import IN_HALF, SENTINELS, TRAINED_SPREAD, Cell
from recorded_runs import LOGITS, Trained, assert_every_rank_was_saved, reloaded_logits

# As in parallel/test_fsdp.py: ranks add gradients up in another order, and AdamW divides a gradient
# by its size, so an entry close to zero may be off by a part of a step of lr 1e-3 (of 16e-3 with
# LoRA+), while the mean difference is rounding.
LARGEST, MEAN = 1e-4, 3e-8
HALF = 0.05


@pytest.mark.parametrize("cell", TRAINED_SPREAD, ids=str)
def test_two_ranks_train_what_one_process_trains(cell: Cell, alone: Any, spread: Any) -> None:
    ours, theirs = spread(cell), alone(cell)
    assert ours.report == theirs.report
    tensors, expected = ours.tensors, theirs.tensors
    del tensors["logits"], expected["logits"]
    assert tensors.keys() == expected.keys()
    differences = {name: (tensor - expected[name]).abs() for name, tensor in tensors.items()}
    rate = cell.method.flags.get("loraplus_lr_ratio", 1)
    assert max(float(difference.max()) for difference in differences.values()) < LARGEST * rate
    assert max(float(difference.mean()) for difference in differences.values()) < MEAN * rate


@pytest.mark.parametrize("cell", TRAINED_SPREAD, ids=str)
def test_what_two_ranks_save_says_the_same(cell: Cell, spread: Any, tiny_model: Path) -> None:
    run = spread(cell)
    again = reloaded_logits(cell, run.saved, tiny_model)
    torch.testing.assert_close(again, run.tensors["logits"], atol=LOGITS, rtol=0)


@pytest.mark.parametrize("cell", IN_HALF, ids=str)
def test_float32_is_held_beside_bfloat16(cell: Cell, alone: Any, on_two_ranks: Path) -> None:
    half, whole = Trained(on_two_ranks / f"half-{cell.method}"), alone(cell)
    assert half.report == whole.report  # the names, what moved, and float32
    assert half.tensors["logits"].dtype == torch.bfloat16
    # bfloat16 keeps 8 bits: through two layers an error of some 2**-8 of logits of about 1
    logits = half.tensors["logits"].float()
    torch.testing.assert_close(logits, whole.tensors["logits"], atol=HALF, rtol=0)


@pytest.mark.parametrize("name", SENTINELS)
def test_every_one_of_two_ranks_is_saved(name: str, on_two_ranks: Path, tiny_model: Path) -> None:
    assert_every_rank_was_saved(on_two_ranks / f"sentinels-{name}", 2, tiny_model)


@pytest.fixture(scope="module")
def four_ranks(sentinels: dict[str, Any], launch: Any) -> Path:
    return launch(4, {}, sentinels, {})


@pytest.mark.parametrize("name", SENTINELS)
def test_every_one_of_four_ranks_is_saved(name: str, four_ranks: Path, tiny_model: Path) -> None:
    assert_every_rank_was_saved(four_ranks / f"sentinels-{name}", 4, tiny_model)
