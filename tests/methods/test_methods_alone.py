"""Each method on one device: what is to be trained moves, nothing else does, and it is saved."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from methods import TRAINED_ALONE, Cell
from recorded_runs import LOGITS, Trained, fine_tune, reloaded_logits, replaced_train

from llama_recipes_local.finetuning import main

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("cell", TRAINED_ALONE, ids=str)
def test_gradient_checkpointing_changes_nothing(
    cell: Cell, alone: Any, common: dict[str, Any], tmp_path: Path
) -> None:
    """The same operations on the same numbers, only twice: not a bit differs."""
    fine_tune(common | cell.flags | {"gradient_checkpointing": True}, tmp_path)
    ours, theirs = Trained(tmp_path), alone(cell)
    assert ours.report == theirs.report
    expected = theirs.tensors
    assert all(tensor.equal(expected[name]) for name, tensor in ours.tensors.items())


@pytest.mark.parametrize(("flags", "times"), [({}, 1), ({"gradient_checkpointing": True}, 2)])
def test_gradient_checkpointing_computes_a_layer_twice(
    flags: dict[str, Any], times: int, common: dict[str, Any], tmp_path: Path
) -> None:
    computed = []

    def train(original: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        layer = model.get_base_model().model.layers[0].input_layernorm
        layer.register_forward_hook(lambda *_: computed.append(1))
        return original(model, *args, **kwargs)

    with replaced_train(train):
        main(**common | flags | {"max_train_step": 1, "use_peft": True}, output_dir=str(tmp_path))
    assert len(computed) == times
