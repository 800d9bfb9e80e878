"""How far a run has come: the part of its state that all others depend on."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from llama_recipes_local.configs.training import HIGHER_IS_BETTER


@dataclass
class TrainState:
    """How far a run has come.

    Attributes:
        step: optimiser steps done.
        epoch: epochs done.
        validated: the step of the last validation; -1 before the first.
        total_steps: optimiser steps of the whole run; 0 if unknown.
        best_metric: the metric that the best model is chosen by.
        best_value: of the best validation, at which the model was saved; None before the first.
        best_tokens: the label tokens or answers that gave ``best_value``; 0 if unknown.
        best_step: the step of the best validation; -1 if unknown.
        stale_validations: validations since the last that was better than all before it, by more
            than the threshold.
    """

    step: int = 0
    epoch: int = 0
    validated: int = -1
    total_steps: int = 0
    best_metric: str = "loss"
    best_value: float | None = None
    best_tokens: int = 0
    best_step: int = -1
    stale_validations: int = 0

    def judge(self, metric: str, value: float, tokens: int, threshold: float) -> bool:
        """Return whether the validation of this step is the best so far, and count the stale ones.

        In a resumed run, the first validation on other rows or by another metric has no earlier
        value to be compared with. Validations are counted as transformers'
        ``EarlyStoppingCallback`` does.

        Args:
            metric: the metric's name.
            value: the metric.
            tokens: the number of label tokens or answers that the metric was computed from.
            threshold: how much better a validation must be for the count to start again.
        """
        gain = math.inf
        comparable = metric == self.best_metric and self.best_tokens in (0, tokens)
        if comparable and self.best_value is not None:
            gain = value - self.best_value if HIGHER_IS_BETTER[metric] else self.best_value - value
        if not math.isfinite(value):
            gain = -math.inf
        self.stale_validations = 0 if gain > threshold else self.stale_validations + 1
        if gain > 0:
            self.best_metric, self.best_value, self.best_tokens = metric, value, tokens
            self.best_step = self.step
        return gain > 0

    def forget_validations(self) -> None:
        """Make the next validation the best, so that its model is saved: the earlier is gone."""
        self.best_value, self.best_tokens, self.validated = None, 0, -1

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON-ready data."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from what ``state_dict`` returned."""
        vars(self).update(vars(TrainState(**state)))
