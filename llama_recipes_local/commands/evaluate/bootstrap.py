"""Confidence intervals by the bootstrap: items of the corpus are drawn with replacement.

A corpus's measure is computed from the items drawn together, not averaged over them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from llama_recipes_local.answers.measures import Array, Measure

RESAMPLES = 1000
CONFIDENCE = 0.95
SEED = 0
BATCH = 100  # resamples in memory at a time


@dataclass(frozen=True)
class Difference:
    """The difference of two results' measures on the same items.

    Attributes:
        value: the second's measure minus the first's.
        low: the lower bound of its confidence interval.
        high: the upper bound.
        p: the two-sided p-value of no difference (Koehn, EMNLP 2004).
    """

    value: float
    low: float
    high: float
    p: float


def interval(measure: Measure) -> tuple[float, float]:
    """Return a measure's 95% confidence interval, by percentiles."""
    return _bootstrap(len(measure.parts), measure.of)[:2]


def difference(first: Measure, second: Measure) -> Difference:
    """Return the difference of two measures of the same items, each resample drawn for both."""

    def statistic(indices: Array) -> Array:
        return second.of(indices) - first.of(indices)

    low, high, drawn = _bootstrap(len(first.parts), statistic)
    share = min((drawn <= 0).mean(), (drawn >= 0).mean())
    value = second.of_all() - first.of_all()
    return Difference(value, low, high, min(1.0, 2 * float(share)))


def _bootstrap(items: int, of: Callable[[Array], Array]) -> tuple[float, float, Array]:
    """Return the interval of a statistic of indices, and its value for each resample."""
    from scipy import stats

    if items < 2:
        value = float(of(np.zeros((1, 1), dtype=int))[0])
        return value, value, np.array([value])

    def statistic(indices: Array, axis: int) -> Array:
        rows = np.moveaxis(indices, axis, -1)
        return of(rows.reshape(-1, items)).reshape(rows.shape[:-1])

    result = stats.bootstrap(
        (np.arange(items),),
        statistic,
        n_resamples=RESAMPLES,
        batch=BATCH,
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    bounds = result.confidence_interval
    return float(bounds.low), float(bounds.high), result.bootstrap_distribution
