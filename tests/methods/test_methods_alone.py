"""Each method on one device: what is to be trained moves, nothing else does, and it is saved."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from methods import METHODS, Method
from recording import LOGITS, reloaded_logits


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_is_trained_moves_and_nothing_else_does(method: Method, alone: Any) -> None:
    report = alone(method).report
    expected = [name for name in report["all"] if re.search(method.trained, name)]
    assert expected and report["trained"] == report["moved"] == expected
    assert report["dtypes"] == ["torch.float32"]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_is_saved_says_the_same(method: Method, alone: Any, tiny_model: Path) -> None:
    run = alone(method)
    logits = run.tensors["logits"]
    start = reloaded_logits("model", tiny_model, tiny_model)
    assert (logits - start).abs().max() > 100 * LOGITS
    again = reloaded_logits(method.saves, run.saved, tiny_model)
    torch.testing.assert_close(again, logits, atol=LOGITS, rtol=0)
