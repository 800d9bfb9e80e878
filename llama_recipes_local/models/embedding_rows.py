"""Rows of embeddings and heads for tokens that a model was not trained on: the mean of the others.

transformers draws such rows from a distribution around the mean. These are the mean itself, so that
every rank, ``generate`` and ``merge`` have the same ones.
"""

from collections.abc import Sequence
from typing import Any

import torch

from llama_recipes_local.run import Run

UNTRAINED_SIZE = 1e-16
"""The largest number of a row that training never reached, as in Llama 3's reserved tokens."""


def is_untrained(rows: torch.Tensor) -> torch.Tensor:
    """Return which rows, (rows, hidden), were never trained, (rows,) bool."""
    return (rows.abs() <= UNTRAINED_SIZE).all(dim=1)


def mean_row(weight: torch.Tensor) -> torch.Tensor:
    """Return the mean of a weight's trained rows, (hidden,) in its dtype, summed in float32."""
    return weight[~is_untrained(weight)].mean(dim=0, dtype=torch.float32).to(weight.dtype)


def with_mean_rows(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """Return a weight grown to ``rows`` rows, (rows, hidden); new rows are the others' mean."""
    return torch.cat([weight, mean_row(weight).expand(rows - len(weight), -1)])


@torch.no_grad()
def set_to_mean(model: Any, ids: Sequence[int], trained: int) -> None:
    """Set rows of a model's embedding and head to the mean of the trained rows.

    Args:
        model: a causal language model.
        ids: the rows.
        trained: number of rows, from the first, that belong to the model's own tokens.
    """
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    for weight in {id(layer.weight): layer.weight for layer in layers}.values():
        others = torch.arange(len(weight), device=weight.device) < trained
        others[list(ids)] = False
        weight[list(ids)] = mean_row(weight[others])


def grow(model: Any, rows: int, trained: int | None = None) -> None:
    """Extend a causal language model to ``rows`` rows; new rows are the mean of the others.

    Args:
        model: the model.
        rows: number of rows that it then has.
        trained: number of rows, from the first, that belong to the model's own tokens; None means
            all.
    """
    before = model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(rows, mean_resizing=False)
    set_to_mean(model, range(before, rows), before if trained is None else trained)


def give_rows(model: Any, run: Run) -> None:
    """Give a run's model the rows that its ``NewTokens`` require, and no others.

    ``main`` resizes the model if the tokenizer has more tokens than rows. The model is left as it
    is if the data has none of the additional tokens.
    """
    new = run.data.new_tokens if run.data is not None else None
    if new is None:
        return
    if new.grows:
        grow(model, new.tokens, new.own)
    elif new.missing:
        names = ", ".join(new.missing.values())
        message = f"--> not resized: no row of the data has {names}"
        model.resize_token_embeddings = lambda tokens: print(message)
    if run.train.train_new_tokens and new.untrained and not run.train.from_peft_checkpoint:
        set_to_mean(model, list(new.untrained), new.own)
