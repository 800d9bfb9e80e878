"""Rules for early stopping and for the metric that the best model is chosen by."""

from llama_recipes_local.configs.training import BEST_METRICS, LOSS
from llama_recipes_local.errors import Problem
from llama_recipes_local.run import Run


def check_early_stopping(run: Run) -> list[Problem]:
    """Find a patience that can never be exhausted in the run."""
    train, patience = run.train, run.train.early_stopping_patience
    what = f"--early_stopping_patience {patience}"
    if patience <= 0:
        return []
    if not train.run_validation:
        fix = "leave one of them out"
        return [Problem(f"{what} with --run_validation False", "nothing would be validated", fix)]
    if train.eval_steps or patience + 1 < train.num_epochs:
        return []
    why = f"validated after each of {train.num_epochs} epochs, the run ends before it could stop"
    fix = "validate more often: --eval_steps N, or give fewer"
    return [Problem(what, why, fix)]


def check_best_metric(run: Run) -> list[Problem]:
    """Find a metric that is not measured, and metrics without a validation."""
    train, rows = run.train, run.train.eval_generation_rows
    metric = BEST_METRICS.get(train.metric_for_best_model.lower(), LOSS)
    problems = []
    if not train.run_validation:
        asked = {
            f"--eval_generation_rows {rows}": rows,
            f"--metric_for_best_model {train.metric_for_best_model}": metric != LOSS,
        }
        why, fix = "nothing would be validated", "leave one of them out"
        return [
            Problem(f"{what} with --run_validation False", why, fix)
            for what, is_asked in asked.items()
            if is_asked
        ]
    if metric != LOSS and not rows:
        why = "it is measured of answers, and none is asked for"
        what = f"--metric_for_best_model {train.metric_for_best_model}"
        problems.append(Problem(what, why, "add --eval_generation_rows 32"))
    return problems
