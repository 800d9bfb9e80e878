"""Counts how rows begin and end, which shows whether a model learns to end its answers."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from llama_recipes_local.data.token_rows import TokenRows


@dataclass(frozen=True)
class Endings:
    """How many of a split's rows begin and stop as generation expects.

    Attributes:
        stopping: rows whose last label is a token that generation stops at.
        begin_doubled: rows that begin with two begin tokens.
        begin_missing: rows without a begin token, although the tokenizer adds one to texts.
    """

    stopping: int
    begin_doubled: int
    begin_missing: int


def find_endings(rows: TokenRows, stops: Collection[int], bos: int | None, begins: bool) -> Endings:
    """Count how rows begin and stop.

    Args:
        rows: the rows.
        stops: ids of the tokens that generation stops at.
        bos: id of the begin token, if the tokenizer has one.
        begins: whether the tokenizer adds the begin token to texts.
    """
    first, second = rows.beginnings
    begun = np.zeros(len(rows), bool) if bos is None else first == bos
    return Endings(
        stopping=int(np.isin(rows.last_labels, sorted(stops)).sum()),
        begin_doubled=int((begun & (second == first)).sum()),
        begin_missing=int((~begun).sum()) if begins else 0,
    )
