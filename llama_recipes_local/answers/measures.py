"""Measures of a corpus, kept as parts per item, so that they can be summed over any items."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Measure:
    """A measure, such as a corpus's GLEU.

    Attributes:
        name: its name in results.
        keys: an identifier of each item, the same in every result that measures the item.
        parts: (items, parts) float64, what each item contributes.
        value: computes the measure of summed parts, (..., parts) to (...).
        higher_is_better: whether the higher of two values is better.
    """

    name: str
    keys: tuple[str, ...]
    parts: Array
    value: Callable[[Array], Array]
    higher_is_better: bool = True

    def of_all(self) -> float:
        """Return the measure of the whole corpus."""
        return float(self.value(self.parts.sum(0)))

    def of(self, indices: Array) -> Array:
        """Return the measure of each selection of items.

        Args:
            indices: (selections, items) of integers; an item may repeat.
        """
        counts = np.stack([np.bincount(row, minlength=len(self.parts)) for row in indices])
        return self.value(counts @ self.parts)

    def of_keys(self, keys: tuple[str, ...]) -> "Measure":
        """Return the measure with its items in the order of the keys."""
        places = {key: place for place, key in enumerate(self.keys)}
        parts = self.parts[[places[key] for key in keys]]
        return Measure(self.name, keys, parts, self.value, self.higher_is_better)


def perplexity(loss: float) -> float:
    """Return exp(loss); infinity if that is too large for a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def ratio(sums: Array) -> Array:
    """Return ``sums[..., 0] / sums[..., 1]``: the mean, given a sum and a count."""
    return sums[..., 0] / sums[..., 1]


def exponential_ratio(sums: Array) -> Array:
    """Return exp of the mean: the perplexity, given a sum of losses and a count of tokens."""
    with np.errstate(over="ignore"):
        return np.exp(ratio(sums))
