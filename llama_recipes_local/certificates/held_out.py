"""The rows that an export is measured on: the run's held-out rows, or the package's own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.certificates.shipped_texts import QUESTIONS
from llama_recipes_local.data.token_rows import IGNORE_INDEX
from llama_recipes_local.datasets.prompt_template import (
    PromptTemplate,
    chat_prompt_template,
    read_prompt_template,
)
from llama_recipes_local.datasets.templates import has_chat_template
from llama_recipes_local.datasets.token_ids import begun, continued_ids, text_ids
from llama_recipes_local.model_folders.exported_model import ExportedModel

MOST_ROWS = 64
LONGEST_ROW = 512  # tokens; what is before them is left out
LONGEST_ANSWER = 48  # tokens
MOST_ANSWERS = 10
MOST_WORK = 10**13
"""Weights times tokens, at most: some minutes on a CPU for 7 billion weights."""


class Row(NamedTuple):
    """A row's token ids, and its labels."""

    ids: Sequence[int]
    labels: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Rows that a model was not trained on.

    Attributes:
        source: where the rows come from, for the certificate.
        rows: tokenised, for losses.
        prompts: whole texts to complete.
        template: the prompts' template; None if they have none.
    """

    source: str
    rows: Sequence[Row]
    prompts: Sequence[str]
    template: PromptTemplate | None


def chosen_rows(rows: Iterable[Row], weights: int) -> list[Row]:
    """Return the rows to measure: those with labels, as many as there is time for.

    Args:
        rows: all of them.
        weights: number of the model's weights.
    """
    tokens, found = MOST_WORK // weights, list[Row]()
    for ids, labels in rows:
        row = Row(ids[-LONGEST_ROW:], labels[-LONGEST_ROW:])
        tokens -= len(row.ids)
        if len(found) == MOST_ROWS or (found and tokens < 0):
            break
        if any(label != IGNORE_INDEX for label in row.labels[1:]):
            found.append(row)
    return found


def shipped_rows(model: ExportedModel, tokenizer: PreTrainedTokenizerBase) -> HeldOut:
    """Return the package's own questions and answers, in the run's prompt or the model's."""
    template = None
    if model.prompt_template is not None:
        template = read_prompt_template(model.prompt_template)
    elif has_chat_template(tokenizer):
        template = chat_prompt_template("tokenizer", tokenizer)
    rows, prompts = [], []
    for question, answer in QUESTIONS:
        prompts.append(
            template.of_text(question, tokenizer) if template else begun(question, tokenizer) + "\n"
        )
        end = template.end_of_turn(tokenizer) if template else ""
        (ids,) = text_ids(tokenizer, prompts[-1:])
        answered = continued_ids(tokenizer, answer + end)
        rows.append(Row([*ids, *answered], [*[IGNORE_INDEX] * len(ids), *answered]))
    source = "the package's own questions"
    return HeldOut(source=source, rows=rows, prompts=prompts[:MOST_ANSWERS], template=template)
