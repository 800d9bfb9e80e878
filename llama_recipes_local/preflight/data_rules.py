"""Which data is taken, how it is batched, and what it asks of the rest of a run."""

from typing import Any

from llama_recipes_local.data.truncation import SHORTEST
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import Problem
from llama_recipes_local.preflight.values import ABOVE_0, BITS_64, choice, out_of_range
from llama_recipes_local.run.resolution import Run


def check_data_rules(run: Run) -> list[Problem]:
    """Return what is wrong with which data is taken and how it is batched."""
    train = run.train
    problems = [
        *choice("dataset", train.dataset, DATASETS),
        *choice("batching_strategy", train.batching_strategy, ("packing", "padding")),
        *out_of_range(train, {"context_length": ABOVE_0, "seed": BITS_64}),
    ]
    if getattr(run.dataset, "streaming", False):
        problems += stream_problems(train)
    if train.batching_strategy == "packing" and 0 < train.context_length < SHORTEST:
        problems.append(
            Problem(
                f"--context_length {train.context_length}",
                "a row of one token predicts nothing",
                f"give --context_length {SHORTEST} or more",
            )
        )
    return problems


def stream_problems(train: Any) -> list[Problem]:
    """Return what a run lacks whose data is a stream, for nobody knows how long that is."""
    needs = [("max_train_step", "how many optimiser steps to train", "")]
    if train.run_validation:
        needs.append(
            ("max_eval_step", "how many batches to validate on", ", or --run_validation False")
        )
    return [
        Problem(
            f"a streamed data set without --{flag}",
            f"a stream has no known length: it does not say {unknown}",
            f"give --{flag} N{otherwise}",
        )
        for flag, unknown, otherwise in needs
        if not getattr(train, flag)
    ]
