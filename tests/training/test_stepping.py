"""Steps of a model of one parameter: what counts as an overflow, and how a gradient is measured."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from llama_recipes_local import configs
from llama_recipes_local.training import stepping

BATCH = {"labels": torch.zeros(1, 2, dtype=torch.long)}


class Sum(nn.Module):
    """A model whose loss is the sum of its weights times a factor."""

    def __init__(self, weights: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(weights, dtype=dtype))
        self.factor = 1.0

    def forward(self, labels: torch.Tensor, num_items_in_batch: float) -> Any:
        return SimpleNamespace(loss=(self.weight * self.factor).sum() / num_items_in_batch)


def stepper_of(model: Sum, **flags: Any) -> stepping.Stepper:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    return stepping.Stepper(model, optimizer, configs.train_config(**flags))


def test_only_overflows_in_a_row_stop_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping, "MAX_CONSECUTIVE_OVERFLOWS", 1)
    model = Sum(1)
    stepper = stepper_of(model, use_fp16=True)
    stops, weights = [], []
    for factor in (1e38, 1.0, 1e38, 1.0, 1e38, 1e38, 1.0):  # times the scale it is infinite
        model.factor = factor
        stops.append(float(stepper.step([BATCH], 1).values[2]))
        weights.append(float(model.weight))
    assert stops == [0, 0, 0, 0, 0, 1, 1]
    assert weights == [1, 0.75, 0.75, 0.5, 0.5, 0.5, 0.5]


def test_an_infinite_gradient_stops_training_without_a_scaler() -> None:
    model = Sum(2)
    stepper = stepper_of(model)
    model.weight.register_hook(lambda gradient: gradient * float("inf"))
    assert float(stepper.step([BATCH], 1).values[2]) == 1
    assert model.weight.tolist() == [1, 1]


def test_the_norm_of_bfloat16_gradients_is_not_rounded_to_their_dtype() -> None:
    figures = stepper_of(Sum(3, torch.bfloat16)).step([BATCH], 1)
    assert float(figures.values[1]) == pytest.approx(3**0.5, rel=1e-6)  # 1.734375 in bfloat16
