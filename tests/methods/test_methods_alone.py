"""Each method on one device: what is to be trained moves, nothing else does, and it is saved."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from methods import TRAINED_ALONE, Cell
from recording import LOGITS, reloaded_logits


@pytest.mark.parametrize("cell", TRAINED_ALONE, ids=str)
def test_what_is_trained_moves_and_nothing_else_does(cell: Cell, alone: Any) -> None:
    report = alone(cell).report
    expected = [name for name in report["all"] if re.search(cell.method.trained, name)]
    assert expected and report["trained"] == report["moved"] == expected
    assert report["dtypes"] == ["torch.float32"]


@pytest.mark.parametrize("cell", TRAINED_ALONE, ids=str)
def test_what_is_saved_says_the_same(cell: Cell, alone: Any, tiny_model: Path) -> None:
    run = alone(cell)
    logits = run.tensors["logits"]
    start = reloaded_logits(cell, None, tiny_model)
    assert (logits - start).abs().max() > 100 * LOGITS
    again = reloaded_logits(cell, run.saved, tiny_model)
    torch.testing.assert_close(again, logits, atol=LOGITS, rtol=0)
