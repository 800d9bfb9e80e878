"""The model's ``config.json`` for the rules: from its folder, or from a planned run."""

from pathlib import Path
from typing import Any

from llama_recipes_local.errors import Problem
from llama_recipes_local.run import Run


def model_config(run: Run) -> dict[str, Any]:
    """Return the ``config.json`` of a run's model; empty if it cannot be read."""
    if run.model is not None:
        return run.model
    from llama_recipes_local.model_folders.model_config import read_config  # which imports torch

    return read_config(Path(run.train.model_name).resolve())


def check_positions(run: Run) -> list[Problem]:
    """Find packed rows that are longer than the model takes; padded ones have the data's length."""
    longest, length = model_config(run).get("max_position_embeddings"), run.train.context_length
    packing = run.train.batching_strategy == "packing"
    if packing and isinstance(longest, int) and longest and length > longest:
        return [longer_than_model("context_length", length, longest)]
    return []


def longer_than_model(flag: str, length: int, positions: int) -> Problem:
    """Return the problem that a flag asks for rows of more tokens than a model has positions."""
    return Problem(
        f"--{flag} {length}",
        f"the model has {positions} positions (max_position_embeddings)",
        f"use --{flag} {positions} or less",
    )
