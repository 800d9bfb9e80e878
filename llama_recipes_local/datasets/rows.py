"""From a user's record to an example: the formatter of ``local_dataset``."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from llama_recipes_local._upstream import load
from llama_recipes_local.datasets.examples import Continuation, Example, Marked, Pair
from llama_recipes_local.datasets.layouts import Layout, read_text, read_turns
from llama_recipes_local.datasets.prompt_template import (
    PLACE,
    PROMPT,
    PromptTemplate,
    chat_prompt_template,
)
from llama_recipes_local.datasets.templates import TEMPLATES, Message, render_chat
from llama_recipes_local.records.checked_values import Record

_TURNS = ("messages", "conversations")
# The layouts that each template is for.
CHOICES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("tokenizer", *TEMPLATES), (*_TURNS, "instruction", "prompt")),
    "alpaca": ("instruction", "prompt"),
    "none": ("instruction", "prompt", "text"),
}


def default_template(layout: str) -> str:
    """Return the template that "auto" means for records of a layout."""
    if layout in _TURNS:
        return "tokenizer"
    return "alpaca" if layout == "instruction" else "none"


@dataclass(frozen=True)
class RowFormatter:
    """Makes an example of a record.

    Attributes:
        layout: which column is what.
        template: one of ``CHOICES`` that is for the layout.
        labels: "assistant" or "all".
    """

    layout: Layout
    template: str
    labels: str

    def __call__(
        self, record: Record, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> Example | None:
        """Return the record's example, or None if what it needs is missing or blank.

        Raises:
            UsageError: if the record is of another layout, a value is not of the form it should
                have, or the template does not support it.
        """
        where, _ = record
        values = self.layout.values(record)
        if self.layout.name in _TURNS:
            ((role, column),) = self.layout.columns
            turns = read_turns(values[role], f"{column!r} in {where}")
            return self._chat(turns, tokenizer, where) if turns else None
        texts = {
            role: read_text(values[role], f"{column!r} in {where}")
            for role, column in self.layout.columns
        }
        if self.layout.name == "text":
            return None if texts["text"] is None else Marked(texts["text"])
        instruction, further, response = _parts(texts)
        if instruction is None or response is None:
            return None
        if self.template in ("alpaca", "none"):
            return self._pair(instruction, further, response)
        prompt = f"{instruction}\n{further}" if further else instruction
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        return self._chat(turns, tokenizer, where)

    def prompt_template(self, tokenizer: PreTrainedTokenizerBase) -> PromptTemplate:
        """Return the prompt template of a text or of turns.

        Raises:
            UsageError: if the tokenizer does not have the template or its tokens.
        """
        if self.template == "alpaca":
            return PromptTemplate(PROMPT, _alpaca_prompt(PLACE, None))
        if self.layout.name == "text" or self.template == "none":
            line_end = "\n" if self.layout.name == "instruction" else ""
            return PromptTemplate(PROMPT, f"{PLACE}{line_end}")
        return chat_prompt_template(self.template, tokenizer)

    def _pair(self, instruction: str, further: str | None, response: str) -> Example:
        """Return a prompt and its response, without turns."""
        if self.template == "alpaca":
            prompt = _alpaca_prompt(instruction, further)
        elif self.layout.name == "instruction":
            prompt = f"{instruction}\n{further}\n" if further else f"{instruction}\n"
        else:
            prompt = instruction
        if self.labels == "all":
            return Marked(prompt + response)
        kind = Continuation if self.template == "alpaca" else Pair
        return kind(prompt, response)

    def _chat(
        self, turns: list[Message], tokenizer: PreTrainedTokenizerBase | None, where: str
    ) -> Marked:
        assert tokenizer is not None, "a chat template needs the tokenizer"
        return render_chat(turns, tokenizer, self.template, self.labels, where)


def _parts(texts: dict[str, str | None]) -> tuple[str | None, str | None, str | None]:
    """Return what is asked, what it is asked of, and the response."""
    if "prompt" in texts:
        return texts["prompt"], None, texts["completion"]
    return texts["instruction"], texts["input"], texts["output"]


def _alpaca_prompt(instruction: str, further: str | None) -> str:
    form = _alpaca_prompts()["prompt_input" if further else "prompt_no_input"]
    return form.format(instruction=instruction, input=further)


@lru_cache(maxsize=1)
def _alpaca_prompts() -> Any:
    return load("datasets.alpaca_dataset").PROMPT_DICT
