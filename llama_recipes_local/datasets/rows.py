"""From a user's record to an example: the formatter of ``local_dataset``."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from llama_recipes_local._upstream import load
from llama_recipes_local.datasets.base import is_empty, unused_columns
from llama_recipes_local.datasets.beside_turns import refuse_media, refuse_switches
from llama_recipes_local.datasets.chat_examples import render_chat
from llama_recipes_local.datasets.column_names import CONTEXT
from llama_recipes_local.datasets.examples import Continuation, Example, Marked, Pair
from llama_recipes_local.datasets.layouts import Layout, read_text
from llama_recipes_local.datasets.marks import is_trained, record_marks
from llama_recipes_local.datasets.preferences import refuse_bad_answer, refuse_pair
from llama_recipes_local.datasets.prompt_template import (
    PLACE,
    PROMPT,
    PromptTemplate,
    chat_prompt_template,
)
from llama_recipes_local.datasets.record_turns import prompted_turns, with_context
from llama_recipes_local.datasets.templates import (
    FLAG,
    TEMPLATES,
    TemplateError,
    find_template,
    fitting_templates,
    has_chat_template,
)
from llama_recipes_local.datasets.turns import (
    Conversation,
    is_turns,
    read_conversation,
)
from llama_recipes_local.errors import Problem, UsageError, caught, refusal
from llama_recipes_local.records.checked_values import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TURNS = ("messages", "conversations")
JOINED = "prompts and responses that met in one word: a space was added before the response"
# The layouts that each template is for.
CHOICES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("tokenizer", *TEMPLATES), (*_TURNS, "instruction", "prompt")),
    "alpaca": ("instruction", "prompt"),
    "none": ("instruction", "prompt", "text"),
}


def default_template(layout: str, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Return the template that "auto" means for records of a layout and a model's tokenizer."""
    if layout in _TURNS or (layout != "text" and has_chat_template(tokenizer)):
        return "tokenizer"
    return "alpaca" if layout == "instruction" else "none"


@dataclass(frozen=True)
class RowFormatter:
    """Makes an example of a record.

    Attributes:
        layout: the role of each column.
        template: one of ``CHOICES`` that is for the layout, or "auto" for the tokenizer's.
        labels: "assistant" or "all".
        skip_bad_rows: whether a record that cannot be used is None, as a blank one is.
    """

    layout: Layout
    template: str
    labels: str
    skip_bad_rows: bool = False

    def for_tokenizer(self, tokenizer: PreTrainedTokenizerBase | None) -> RowFormatter:
        """Return the formatter with the template that "auto" means for a tokenizer."""
        if self.template != "auto":
            return self
        return replace(self, template=default_template(self.layout.name, tokenizer))

    def renders(self, tokenizer: PreTrainedTokenizerBase | None) -> bool:
        """Return whether records are turns in a chat template."""
        template = self.for_tokenizer(tokenizer).template
        return self.layout.name != "text" and template not in ("alpaca", "none")

    def __call__(
        self, record: Record, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> Example | None:
        """Return the record's example, or None if what it needs is missing or blank.

        Raises:
            UsageError: if the record is of another layout, a value is not of the form it should
                have, or the template does not support it or has no place for it.
        """
        if self.template == "auto":
            return self.for_tokenizer(tokenizer)(record, tokenizer)
        try:
            example = self._example(record, tokenizer)
        except UsageError as error:
            if not self.skip_bad_rows or isinstance(error, TemplateError):
                raise
            return None
        if example is None:
            return None
        unused = self.unused(record[1])
        if not is_trained(self._marks(record[1]), record[0]):
            return Marked("", spans=(), complete=True, notes=unused)
        return replace(example, notes=(*unused, *example.notes)) if unused else example

    def problems(self, record: Record, tokenizer: PreTrainedTokenizerBase | None) -> list[Problem]:
        """Return why a record was skipped; none if it is blank."""
        if not self.skip_bad_rows:
            return []
        with caught() as problems:
            replace(self, skip_bad_rows=False)(record, tokenizer)
        return problems

    def _example(self, record: Record, tokenizer: PreTrainedTokenizerBase | None) -> Example | None:
        if not self.renders(tokenizer):
            self._check(record)
        if self.layout.name == "text":
            ((_, column),) = self.layout.columns
            text = read_text(self.layout.values(record)["text"], f"{column!r} in {record[0]}")
            return None if text is None else Marked(text)
        if not self.renders(tokenizer):
            self._refuse_turns(record, tokenizer)
            parts = self._parts(record)
            if parts is None:
                return None
            self._refuse_context(record, tokenizer)
            return self._pair(*parts)
        whole = self.conversation(record)
        if whole is None:
            return None
        assert tokenizer is not None, "a chat template needs the tokenizer"
        refuse_switches(record, find_template(self.template, tokenizer).text)
        return render_chat(whole, tokenizer, self.template, self.labels, record[0])

    def conversation(self, record: Record) -> Conversation | None:
        """Return a record as turns with their context; None if a side is blank.

        Raises:
            UsageError: if the record is of another layout, or a value not of the form it should
                have.
        """
        self._check(record)
        if self.layout.name in _TURNS:
            ((role, column),) = self.layout.columns
            value = self.layout.values(record)[role]
            said = read_conversation(value, f"{column!r} in {record[0]}")
            if said and said.turns[-1]["role"] != "assistant":
                refuse_pair(record)  # of answers that are beside the turns
        else:
            said = self._question_and_answer(record)
        return with_context(said, self._context(record[1]), record[0]) if said else None

    def unused(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return a note for each column that has a value but no place in the record's example."""
        used = {column for _, column in self.layout.columns}
        used |= self._marks(values).keys()
        if self.layout.name != "text":
            used |= {column for column, _ in self._context(values).values()}
        return unused_columns(values, used)

    def _question_and_answer(self, record: Record) -> Conversation | None:
        if self._sides_of_turns(record):
            values, columns = self.layout.values(record), dict(self.layout.columns)
            named = {role: f"{columns[role]!r} in {record[0]}" for role in columns}
            return prompted_turns(values, named, self.labels == "all")
        parts = self._parts(record)
        if parts is None:
            return None
        instruction, further, response = parts
        prompt = f"{instruction}\n{further}" if further else instruction
        return Conversation(
            [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        )

    def _sides_of_turns(self, record: Record) -> list[str]:
        """Return the columns of a prompt and a completion that are turns, as TRL has them."""
        if self.layout.name != "prompt":
            return []
        values = self.layout.values(record)
        return [column for role, column in self.layout.columns if is_turns(values[role])]

    def _parts(self, record: Record) -> tuple[str, str | None, str] | None:
        """Return the question, its input and the response; None if one is blank."""
        values = self.layout.values(record)
        texts = {
            role: read_text(values[role], f"{column!r} in {record[0]}")
            for role, column in self.layout.columns
        }
        prompt = "prompt" in texts
        instruction = texts["prompt" if prompt else "instruction"]
        response = texts["completion" if prompt else "output"]
        if instruction is None or response is None:
            return None
        return instruction, texts.get("input"), response

    def prompt_template(self, tokenizer: PreTrainedTokenizerBase) -> PromptTemplate:
        """Return the prompt template of a text or of turns.

        Raises:
            UsageError: if the tokenizer does not have the template or its tokens.
        """
        if self.template == "auto":
            return self.for_tokenizer(tokenizer).prompt_template(tokenizer)
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
        notes: tuple[str, ...] = ()
        if not any(each.isspace() or _is_unspaced(each) for each in (prompt[-1], response[0])):
            # generation is prompted with the prompt alone, so the space begins the response
            response = f" {response}"
            notes = () if self.template == "alpaca" else (JOINED,)  # there it is in each record
        if self.labels == "all":
            return Marked(prompt + response, notes=notes)
        kind = Continuation if self.template == "alpaca" else Pair
        return kind(prompt, response, notes=notes)

    def _context(self, values: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
        """Return the context of a record's turns, with the column's name, by role.

        If two columns have the same role, it is the first; ``unused`` reports the other.
        """
        taken = {column for _, column in self.layout.columns}
        found: dict[str, tuple[str, Any]] = {}
        for name, value in values.items():
            what = CONTEXT.get(name.strip().casefold())
            if what and name not in taken and not is_empty(value):
                found.setdefault(what, (name, value))
        return found

    def _marks(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the marks that tell whether a record is trained, by the column's name."""
        taken = {column for _, column in self.layout.columns}
        return {name: mark for name, mark in record_marks(values).items() if name not in taken}

    def _check(self, record: Record) -> None:
        """Refuse a record that must not be trained, whatever its texts are.

        Raises:
            UsageError: if its answer is marked as bad, whether it is trained is unclear, or it has
                more than text.
        """
        is_trained(self._marks(record[1]), record[0])
        if self.layout.name != "text":
            taken = {column for _, column in self.layout.columns}
            refuse_bad_answer(record, taken)
            refuse_media(record, taken)

    def _refuse_turns(self, record: Record, tokenizer: PreTrainedTokenizerBase | None) -> None:
        """Refuse a prompt or a completion of turns where there is no template for them.

        Raises:
            UsageError: with the templates that could be used.
        """
        columns = self._sides_of_turns(record)
        if columns:
            raise refusal(
                f"{' and '.join(map(repr, columns))} in {record[0]} are turns",
                f"the template {self.template} is for texts",
                f"name a chat template: {_turns_flag(tokenizer)}",
            )

    def _refuse_context(self, record: Record, tokenizer: PreTrainedTokenizerBase | None) -> None:
        """Refuse a record with a system prompt, a history or tools where there are no turns.

        Raises:
            UsageError: with the templates that have a place for them.
        """
        context = self._context(record[1])
        if not context:
            return
        columns = " and ".join(repr(column) for column, _ in context.values())
        raise refusal(
            f"the template {self.template} has no place for {columns}: {record[0]}",
            f"without {columns} the model would learn something else",
            f"make turns of the record: {_turns_flag(tokenizer)}; or remove the column",
        )


def _turns_flag(tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Return the flag with the templates that write turns."""
    fitting = fitting_templates(tokenizer) if tokenizer is not None else list(TEMPLATES)
    return f"{FLAG}={' or '.join(fitting)}"


def _is_unspaced(letter: str) -> bool:
    """Return whether a letter's script has no spaces, as Chinese; Korean, as wide, has them."""
    korean = unicodedata.name(letter, "").startswith("HANGUL")
    return unicodedata.east_asian_width(letter) in "WF" and not korean


def _alpaca_prompt(instruction: str, further: str | None) -> str:
    form = _alpaca_prompts()["prompt_input" if further else "prompt_no_input"]
    return form.format(instruction=instruction, input=further)


@lru_cache(maxsize=1)
def _alpaca_prompts() -> Any:
    return load("datasets.alpaca_dataset").PROMPT_DICT
