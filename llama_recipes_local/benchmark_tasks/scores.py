"""Scores of subjects and groups with standard errors, computed as lm-eval does."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, variance


@dataclass(frozen=True)
class Score:
    """The share of right answers.

    Attributes:
        name: of what was measured.
        questions: their number.
        value: the share of right answers.
        stderr: its standard error; None for fewer than two questions of each subject.
    """

    name: str
    questions: int
    value: float
    stderr: float | None


def score(name: str, right: Sequence[bool]) -> Score:
    """Return the score of a subject."""
    many = len(right) > 1
    error = math.sqrt(variance(map(float, right)) / len(right)) if many else None
    return Score(name, len(right), mean(map(float, right)), error)


def pooled(name: str, scores: Iterable[Score]) -> Score:
    """Return the score of several subjects, each weighed by its questions."""
    known = list(scores)
    count = sum(each.questions for each in known)
    value = sum(each.value * each.questions for each in known) / count
    error = None
    if all(each.stderr is not None for each in known):
        squares = sum(
            (each.questions - 1) * each.questions * (each.stderr or 0) ** 2 for each in known
        )
        error = math.sqrt(squares / (count - len(known)) / count)
    return Score(name, count, value, error)
