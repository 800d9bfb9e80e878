"""95% confidence intervals by the bootstrap over rows, drawn with replacement."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 1000
_BOUNDS = (2.5, 97.5)  # percentiles


class Interval(NamedTuple):
    """A value, and the bounds of its 95% confidence interval."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        value, low, high = (format(each, spec) for each in self)
        return f"{value} ({low} to {high})"


def ratio_interval(
    sums: Sequence[float], counts: Sequence[int], of: Callable[[np.ndarray], np.ndarray]
) -> Interval:
    """Return a function of the mean per token, with its interval.

    Args:
        sums: sum of each row.
        counts: tokens of each row.
        of: the function of the mean per token.
    """
    parts = np.array([sums, counts], float)
    drawn = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
    resampled = parts[:, drawn].sum(2)
    low, high = np.percentile(of(resampled[0] / resampled[1]), _BOUNDS)
    total = parts.sum(1)
    return Interval(float(of(total[0] / total[1])), float(low), float(high))
