"""The metrics of ``--metrics``: what each is computed from, and which package it needs.

A metric is a line in ``METRICS``. A data set declares which metrics it is evaluated with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import numpy as np

from llama_recipes_local.answers.gleu import gleu, words
from llama_recipes_local.answers.measures import (
    Array,
    Measure,
    exponential_ratio,
    ratio,
)
from llama_recipes_local.answers.rouge import rouge
from llama_recipes_local.benchmark_tasks.solutions import FLEXIBLE, STRICT, is_right


class Document(TypedDict):
    """A document's loss: a sum over its label tokens, and how many those are."""

    key: str
    loss: float
    tokens: int


class _Answer(TypedDict):
    key: str
    source: str
    prediction: str
    references: list[str]


class Answer(_Answer, total=False):
    """What the model answered to a prompt.

    ``key`` is the prompt, ``source`` the text in it, or empty where that is not known; ``ended``
    says whether the answer ended by itself, before its length was up.
    """

    ended: bool


@dataclass(frozen=True)
class LossMetric:
    """A metric of the validation loss.

    Attributes:
        measures: computes the measures from the documents' losses.
    """

    measures: Callable[[Sequence[Document]], list[Measure]]
    package = ""


@dataclass(frozen=True)
class AnswerMetric:
    """A metric of generated answers.

    Attributes:
        measures: computes the measures from the answers.
        package: the optional package that it needs.
        needs_source: whether it compares an answer with the text in the prompt.
    """

    measures: Callable[[Sequence[Answer]], list[Measure]]
    package: str = ""
    needs_source: bool = False


def _loss(name: str, value: Callable[[Array], Array]) -> LossMetric:
    def measures(documents: Sequence[Document]) -> list[Measure]:
        parts = np.array([[each["loss"], each["tokens"]] for each in documents], float)
        return [Measure(name, _keys(documents), parts, value, higher_is_better=False)]

    return LossMetric(measures)


def _gleu(answers: Sequence[Answer]) -> list[Measure]:
    references = [[words(text) for text in each["references"]] for each in answers]
    sources = [words(each["source"]) for each in answers]
    predictions = [words(each["prediction"]) for each in answers]
    return [gleu(_keys(answers), sources, predictions, references)]


def _rouge(answers: Sequence[Answer]) -> list[Measure]:
    predictions = [each["prediction"] for each in answers]
    return rouge(_keys(answers), predictions, [each["references"] for each in answers])


def _share(name: str, right: Callable[[Answer], bool]) -> AnswerMetric:
    def measures(answers: Sequence[Answer]) -> list[Measure]:
        parts = np.array([[right(each), 1] for each in answers], float)
        return [Measure(name, _keys(answers), parts, ratio)]

    return AnswerMetric(measures)


def _is_solved(rule: str, answer: Answer) -> bool:
    return is_right(rule, answer["prediction"], answer["references"][0])


def _keys(items: Sequence[Document] | Sequence[Answer]) -> tuple[str, ...]:
    return tuple(each["key"] for each in items)


METRICS: dict[str, LossMetric | AnswerMetric] = {
    "loss": _loss("loss", ratio),
    "perplexity": _loss("perplexity", exponential_ratio),
    "gleu": AnswerMetric(_gleu, package="nltk", needs_source=True),
    "rouge": AnswerMetric(_rouge, package="rouge_score"),
}


BENCHMARK_METRICS = {
    "acc": _share("acc", lambda answer: answer["prediction"] in answer["references"]),
    **{
        name: _share(name, partial(_is_solved, rule))
        for rule in (STRICT, FLEXIBLE)
        for name in [f"exact_match,{rule}"]
    },
}
"""Those of ``--benchmark``, by lm-eval's names: the share of right answers."""


def loss_metrics() -> list[str]:
    """Return the names of the metrics of the loss."""
    return [name for name, metric in METRICS.items() if isinstance(metric, LossMetric)]


def answer_metrics() -> list[str]:
    """Return the names of the metrics of generated answers."""
    return [name for name, metric in METRICS.items() if isinstance(metric, AnswerMetric)]
