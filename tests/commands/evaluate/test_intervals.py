"""Intervals are scipy's bootstrap of the corpus's measure; differences are drawn in pairs."""

import math

import numpy as np
import pytest
from scipy import stats

from llama_recipes_local.answers.measures import Measure, exponential_ratio, ratio
from llama_recipes_local.answers.rouge import rouge
from llama_recipes_local.commands.evaluate.bootstrap import difference, interval

DRAW = np.random.default_rng(7)
TOKENS = DRAW.integers(1, 200, 400).astype(float)
# long documents are easier, so that the mean over documents is not the mean over tokens
LOSSES = TOKENS * (3 - TOKENS / 100 + DRAW.normal(0, 0.3, 400))


def measure(losses: np.ndarray, higher: bool = False) -> Measure:  # type: ignore[type-arg]
    keys = tuple(map(str, range(len(losses))))
    return Measure("loss", keys, np.stack([losses, TOKENS], 1), ratio, higher)


def test_an_interval_is_of_the_corpus_not_of_the_mean_over_items() -> None:
    found = measure(LOSSES)
    assert found.of_all() == pytest.approx(LOSSES.sum() / TOKENS.sum())
    assert abs(found.of_all() - (LOSSES / TOKENS).mean()) > 0.3
    low, high = interval(found)
    assert low < found.of_all() < high
    # by the delta method: the ratio's standard error, of the residuals
    residuals = LOSSES - found.of_all() * TOKENS
    error = residuals.std(ddof=1) / math.sqrt(400) / TOKENS.mean()
    expected = stats.norm.interval(0.95, found.of_all(), error)
    # of 1000 resamples, the 2.5% quantile is known to about a tenth of the standard error
    assert (low, high) == pytest.approx(expected, abs=0.25 * error)


def test_perplexity_is_the_exponential_of_the_loss() -> None:
    parts = measure(LOSSES).parts
    found = Measure("perplexity", measure(LOSSES).keys, parts, exponential_ratio, False)
    assert interval(found) == pytest.approx(tuple(map(math.exp, interval(measure(LOSSES)))))


def test_a_difference_is_of_pairs() -> None:
    """A shift that no unpaired test would see is told; noise alone is not."""
    first, second = measure(LOSSES), measure(LOSSES + 0.01 * TOKENS)
    shift = difference(first, second)
    assert shift.value == pytest.approx(0.01)
    assert (shift.low, shift.high) == pytest.approx((0.01, 0.01))
    assert shift.p == 0
    noise = difference(first, measure(LOSSES + DRAW.permutation(LOSSES - LOSSES.mean()) * 1e-3))
    assert noise.low < 0 < noise.high
    assert noise.p > 0.05
    assert difference(first, first).p == 1


def test_a_difference_needs_no_order() -> None:
    first = measure(LOSSES)
    order = tuple(DRAW.permutation(first.keys))
    assert difference(first, first.of_keys(order).of_keys(first.keys)).value == 0
    assert not np.array_equal(first.of_keys(order).parts, first.parts)


def test_one_item_has_no_width() -> None:
    single = Measure("loss", ("1",), np.array([[3.0, 2.0]]), ratio, False)
    assert interval(single) == (1.5, 1.5)


def test_rouge_by_hand() -> None:
    """The better reference counts, and words are stemmed."""
    measures = rouge(["1", "2"], ["the cats sat", "x"], [["a b", "the cat sat down"], ["y"]])
    found = {each.name: each.parts[:, 0].tolist() for each in measures}
    # 3 of 3 words in 3 of 4; 2 of 2 pairs in 2 of 3; the longest common subsequence has 3
    assert found["rouge1"] == pytest.approx([2 * 1 * 0.75 / 1.75, 0])
    assert found["rouge2"] == pytest.approx([2 * 1 * (2 / 3) / (5 / 3), 0])
    assert found["rougeL"] == pytest.approx([2 * 1 * 0.75 / 1.75, 0])
    assert measures[0].of_all() == pytest.approx(0.75 / 1.75)
