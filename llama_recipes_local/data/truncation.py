"""A document longer than a row: what of it is trained."""

import numpy as np
from numpy.typing import NDArray

from llama_recipes_local.data.token_rows import IGNORE_INDEX, Tokens

SHORTEST = 2
"""A row of fewer tokens predicts nothing."""


def fit(ids: Tokens, labels: Tokens, limit: int) -> list[tuple[Tokens, Tokens]]:
    """Return the documents of at most ``limit`` tokens that a document is trained as.

    A document that is short enough stays as it is. In a longer one with a prompt (at least two
    tokens before the first label, after which any number of turns may follow), the prompt loses its
    middle and keeps its first token; if what follows is too long by itself, it loses its end. A
    longer one whose labels start at once, as plain text's do, is cut into pieces. A piece begins
    with the last token of the one before, because a first token is never predicted: so every label
    is predicted exactly once. A piece that would predict nothing is left out.

    Args:
        ids: the tokens.
        labels: as many; -100 where a token is not trained.
        limit: the tokens of a row, 2 or more.

    Raises:
        ValueError: if ``limit`` is below 2, for such a row predicts nothing.
    """
    if limit < SHORTEST:
        raise ValueError(f"a row of {limit} tokens predicts nothing: it takes {SHORTEST} or more")
    if len(ids) <= limit:
        return [(ids, labels)]
    tokens, targets = np.asarray(ids), np.asarray(labels)
    trained = np.flatnonzero(targets[1:] != IGNORE_INDEX) + 1
    if not trained.size:
        return []
    if targets[0] != IGNORE_INDEX or trained[0] == 1:
        return _pieces(tokens, targets, limit)
    kept = _without_the_middle(int(trained[0]), int(trained[-1]) + 1, limit)
    return [(tokens[kept].tolist(), targets[kept].tolist())]


def _without_the_middle(prompt: int, end: int, limit: int) -> NDArray[np.int64]:
    """Return the positions that are kept of a prompt and of what follows up to the last label."""
    room = max(limit - (end - prompt), 1)
    head = min(-(-room // 2), prompt)
    tail = min(room - head, prompt - head)
    kept = [np.arange(head), np.arange(prompt - tail, end)]
    return np.concatenate(kept)[:limit]


def _pieces(
    tokens: NDArray[np.int32], targets: NDArray[np.int32], limit: int
) -> list[tuple[Tokens, Tokens]]:
    cuts = range(0, len(tokens) - 1, limit - 1)
    pieces = [slice(start, start + limit) for start in cuts]
    return [
        (tokens[piece].tolist(), targets[piece].tolist())
        for piece in pieces
        if (targets[piece][1:] != IGNORE_INDEX).any()
    ]
