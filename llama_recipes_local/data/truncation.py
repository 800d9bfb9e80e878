"""Truncation: which part of a document longer than a row is trained on."""

import numpy as np
from numpy.typing import NDArray

from llama_recipes_local.data.token_rows import IGNORE_INDEX, Tokens

SHORTEST = 2
"""A row of fewer tokens predicts nothing."""


def truncate(ids: Tokens, labels: Tokens, limit: int) -> list[tuple[Tokens, Tokens]]:
    """Return the documents of at most ``limit`` tokens that a document is trained as.

    A document that is short enough stays as it is. A longer one with a prompt (at least two tokens
    before the first label, after which any number of turns may follow) is truncated: its prompt in
    the middle, keeping the first token, and, if what follows is too long by itself, at its end. A
    longer one whose labels start at once, as plain text's do, is split. Each part begins with the
    last token of the part before, because a first token is never predicted: so every label is
    predicted exactly once. A part that would predict nothing is skipped.

    Args:
        ids: the tokens.
        labels: as many; -100 where a token is not trained.
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
    """Return the positions to keep of a prompt and of what follows it up to the last label."""
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
