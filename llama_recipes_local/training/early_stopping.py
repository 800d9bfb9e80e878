"""Tracks the best validation, and ends a run after too many validations without a better one."""

from typing import Any

from llama_recipes_local import configs
from llama_recipes_local.configs.training import BEST_METRICS, LOSS
from llama_recipes_local.training.evaluation import Evaluated
from llama_recipes_local.training.train_state import TrainState


def judged(state: TrainState, found: Evaluated, config: configs.train_config) -> bool:
    """Return whether a validation is the best so far, by ``metric_for_best_model``."""
    metric = BEST_METRICS[config.metric_for_best_model.lower()]
    value = found.loss if metric == LOSS else found.scores[metric]
    counted = found.label_tokens if metric == LOSS else config.eval_generation_rows
    return state.judge(metric, value, counted, config.early_stopping_threshold)


def stops_early(state: TrainState, config: configs.train_config) -> bool:
    """Return whether the last ``early_stopping_patience`` validations were no improvement."""
    return 0 < config.early_stopping_patience <= state.stale_validations


def best_so_far(state: TrainState, config: configs.train_config, steps: int) -> dict[str, Any]:
    """Return a run's best validation, and why it stopped early if it did, for its report.

    Args:
        state: how far the run has come.
        config: the run's settings.
        steps: the steps that the whole run would have.
    """
    if state.best_value is None or state.best_step < 0:
        return {}
    best = f"{state.best_metric} {state.best_value:.4f} after step {state.best_step}"
    found = {"best": best, "best_step": state.best_step}
    if not stops_early(state, config):
        return found
    by = config.early_stopping_threshold
    more = f" by more than {by:g}" if by else ""
    why = f"{state.best_metric} did not improve{more} in {state.stale_validations} validations"
    return found | {"stopped": f"early, after step {state.step} of {steps}: {why}"}
