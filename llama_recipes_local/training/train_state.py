"""How far a run has come: the part of a trainer's state that all others go by."""

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class TrainState:
    """How far a run has come.

    Attributes:
        step: optimiser steps done.
        epoch: epochs done.
        best_loss: the lowest loss that the model was saved at.
        validated: the step of the last validation; -1 before the first.
        best_tokens: label tokens of the validation that gave ``best_loss``; 0 if unknown.
        total_steps: optimiser steps of the whole run; 0 if unknown.
    """

    step: int = 0
    epoch: int = 0
    best_loss: float = math.inf
    validated: int = -1
    best_tokens: int = 0
    total_steps: int = 0

    def forget_validations(self) -> None:
        """Have the next validation's model saved: those that were saved are gone."""
        self.best_loss, self.best_tokens, self.validated = math.inf, 0, -1

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON-ready data, in which there is no infinity."""
        return asdict(self) | {"best_loss": self.best_loss if self.best_loss < math.inf else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from what ``state_dict`` returned."""
        best = state["best_loss"]
        saved = TrainState(**state | {"best_loss": math.inf if best is None else best})
        vars(self).update(vars(saved))
