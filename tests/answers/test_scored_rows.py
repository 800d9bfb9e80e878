"""Answers at validations: each is compared with the references of its own prompt."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from llama_recipes_local.answers import scored_rows
from llama_recipes_local.answers.questions import Question
from llama_recipes_local.answers.scored_rows import ScoredRows
from llama_recipes_local.configs.training import GLEU, ROUGE_L, STOP_SHARE

# prompts whose order by length is not their order, more than a batch of them
ASKED = [
    Question("p" * (number * 7 % 12 + 1), f"the {number} cats sits", [f"the {number} cats sit now"])
    for number in range(12)
]


class Answering:
    """Answers each prompt with its reference, and ends all answers but one in four by itself."""

    ends: list[int] = []  # noqa: RUF012

    def complete_and_tell(self, prompts: list[str], *_: Any) -> list[list[tuple[str, bool]]]:
        assert len(prompts) <= scored_rows.ANSWERED_AT_A_TIME
        known = {each.prompt: (each.references[0], i % 4 > 0) for i, each in enumerate(ASKED)}
        return [[known[prompt]] for prompt in prompts]


def test_each_answer_is_compared_with_its_own_references(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def generating(*_: Any) -> Iterator[Answering]:
        yield Answering()

    monkeypatch.setattr(scored_rows, "generating", generating)
    monkeypatch.setattr(scored_rows, "find_stops", lambda *_: None)
    rows = ScoredRows(ASKED, None, (GLEU, ROUGE_L, STOP_SHARE))
    asked: list[None] = []
    anything: Any = None
    found = rows.scores(anything, anything, lambda: asked.append(None))
    assert found == {GLEU: 1.0, ROUGE_L: 1.0, STOP_SHARE: 0.75}
    assert len(asked) == 2  # a signal is looked for before each batch
