"""Truncation: selects the part of a document longer than a row that is trained on."""

import numpy as np
from numpy.typing import NDArray

from llama_recipes_local.data.token_rows import IGNORE_INDEX, Tokens

SHORTEST = 2
"""A row of fewer tokens predicts nothing."""


def truncate(ids: Tokens, labels: Tokens, limit: int) -> list[tuple[Tokens, Tokens]]:
    """Return the documents of at most ``limit`` tokens that are trained in place of one.

    A short document is not changed. A longer one with a prompt (at least two tokens before the
    first label; any number of turns may follow) loses the middle of its prompt, but keeps the first
    token. If what follows the prompt is too long by itself, it loses its end. A longer document
    whose labels start at once, such as plain text, is split. Each part then begins with the last
    token of the part before, because a first token is never predicted; so every label is predicted
    exactly once. A part without a predicted label is skipped.

    Args:
        ids: the tokens.
        labels: as many labels; -100 where a token is not trained.
        limit: the tokens of a row, 2 or more.

    Raises:
        ValueError: if ``limit`` is below 2: such a row predicts nothing.
    """
    if limit < SHORTEST:
        raise ValueError(f"a row of {limit} tokens predicts nothing: it needs {SHORTEST} or more")
    if len(ids) <= limit:
        return [(ids, labels)]
    tokens, targets = np.asarray(ids, np.int32), np.asarray(labels, np.int32)
    trained = np.flatnonzero(targets[1:] != IGNORE_INDEX) + 1
    if not trained.size:
        return []
    if targets[0] != IGNORE_INDEX or trained[0] == 1:
        return _split(tokens, targets, limit)
    kept = _without_the_middle(int(trained[0]), int(trained[-1]) + 1, limit)
    return [(tokens[kept].tolist(), targets[kept].tolist())]


def _without_the_middle(prompt: int, end: int, limit: int) -> NDArray[np.int64]:
    """Return the positions that are kept of a prompt, and of what follows up to the last label."""
    # what the response leaves of the row, half for either end of the prompt
    budget = max(limit - (end - prompt), 1)
    head = min(-(-budget // 2), prompt)
    tail = min(budget - head, prompt - head)
    kept = [np.arange(head), np.arange(prompt - tail, end)]
    return np.concatenate(kept)[:limit]


def _split(
    tokens: NDArray[np.int32], targets: NDArray[np.int32], limit: int
) -> list[tuple[Tokens, Tokens]]:
    starts = range(0, len(tokens) - 1, limit - 1)
    parts = [slice(start, start + limit) for start in starts]
    return [
        (tokens[part], targets[part]) for part in parts if (targets[part][1:] != IGNORE_INDEX).any()
    ]
