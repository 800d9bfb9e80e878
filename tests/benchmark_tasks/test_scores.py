"""Scores and standard errors of benchmarks, worked out by hand."""

import pytest

from llama_recipes_local.benchmark_tasks.scores import pooled, score

FOUR, TWO = score("four", [True, True, True, False]), score("two", [True, False])


def test_a_subject_has_the_standard_error_of_its_mean() -> None:
    # the variance of a sample of 1, 1, 1, 0 is 1/4, of 1, 0 it is 1/2
    assert (FOUR.questions, FOUR.value, FOUR.stderr) == (4, 0.75, pytest.approx((1 / 4 / 4) ** 0.5))
    assert (TWO.questions, TWO.value, TWO.stderr) == (2, 0.5, pytest.approx((1 / 2 / 2) ** 0.5))


def test_a_single_answer_has_no_standard_error() -> None:
    assert score("one", [True]).stderr is None
    assert pooled("all", [FOUR, score("one", [True])]).stderr is None


def test_subjects_are_pooled_by_their_questions() -> None:
    both = pooled("both", [FOUR, TWO])
    assert (both.questions, both.value) == (6, pytest.approx(4 / 6))
    # sums of squares 3/4 and 1/2, for 6 answers less 2 means
    assert both.stderr == pytest.approx(((3 / 4 + 1 / 2) / (6 - 2) / 6) ** 0.5)
