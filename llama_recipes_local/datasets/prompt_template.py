"""The prompt template of training, saved with the model so that generation uses the same.

A data set's formatter returns it; ``RunData.save`` writes it into the run's folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_recipes_local.datasets.templates import (
    FLAG,
    Chat,
    Message,
    find_template,
    for_tools,
    render_turns,
)
from llama_recipes_local.datasets.written_turns import render_prompt
from llama_recipes_local.errors import door
from llama_recipes_local.run.record import find_in_run
from llama_recipes_local.storage.publishing import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPT_TEMPLATE_FILE = "prompt_template.json"
PLACE = "{}"
PROMPT, CHAT = "prompt", "chat"


@dataclass(frozen=True)
class PromptTemplate:
    """A prompt, or turns, with a place for the user's text.

    Attributes:
        kind: "prompt", or "chat" for turns.
        template: the prompt, with ``{}`` where the text goes; or turns' Jinja template.
        complete: whether it writes the token that begins a text itself.
        begins: whether a text begins with that token even if the tokenizer's texts do not.
    """

    kind: str
    template: str
    complete: bool = False
    begins: bool = False

    def of_text(self, text: str, tokenizer: PreTrainedTokenizerBase) -> str:
        """Return a text in its prompt, or as the one turn of a user, from the first token on."""
        if self.kind == CHAT:
            return self.of_turns([{"role": "user", "content": text}], tokenizer)
        return self._begun(self.template.replace(PLACE, text, 1), tokenizer)

    def of_turns(
        self,
        turns: Sequence[Message],
        tokenizer: PreTrainedTokenizerBase,
        tools: Sequence[dict[str, Any]] = (),
        where: str = "the conversation",
    ) -> str:
        """Return turns up to where the assistant's next words begin, from the first token on.

        Args:
            turns: the turns, at least one.
            tokenizer: the model's.
            tools: the JSON schema of each tool that the assistant may call.
            where: how the user knows the turns, for messages.

        Raises:
            UsageError: if the template does not support them.
        """
        template = for_tools(self.template, tokenizer, tools)
        chat = Chat(template, tokenizer, where, "--template", tuple(tools))
        return self._begun(render_prompt(chat, turns), tokenizer)

    def end_of_turn(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Return the text between the assistant's words and the user's next; empty for a prompt."""
        if self.kind != CHAT:
            return ""
        turns = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
        text = render_turns(turns, self.template, tokenizer)
        return text.rpartition("user")[0].rpartition("assistant")[2].strip()

    def _begun(self, text: str, tokenizer: PreTrainedTokenizerBase) -> str:
        from llama_recipes_local.datasets.token_ids import begun

        return text if self.complete else begun(text, tokenizer, self.begins)


def chat_prompt_template(
    name: str, tokenizer: PreTrainedTokenizerBase, flag: str = FLAG
) -> PromptTemplate:
    """Return the prompt template of a chat template; "tokenizer" is the tokenizer's own.

    Args:
        name: one of ``TEMPLATES``, or "tokenizer".
        tokenizer: the model's.
        flag: the flag that named it, for messages.

    Raises:
        UsageError: as ``find_template``.
    """
    template = find_template(name, tokenizer, flag)
    return PromptTemplate(CHAT, template.text, template.complete)


def find_prompt_template(folder: Path) -> Path | None:
    """Return the prompt template's file of the run that wrote a model's folder, or None.

    Raises:
        UsageError: if it is corrupt.
    """
    found = find_in_run(folder, PROMPT_TEMPLATE_FILE)
    if found is not None:
        read_prompt_template(found)
    return found


def save_prompt_template(template: PromptTemplate | None, folder: Path) -> None:
    """Write a prompt template into a run's folder; None removes that of an earlier run."""
    if template is None:
        (folder / PROMPT_TEMPLATE_FILE).unlink(missing_ok=True)
        return
    write_json(folder / PROMPT_TEMPLATE_FILE, asdict(template))


def read_prompt_template(path: Path) -> PromptTemplate:
    """Read a prompt template.

    Raises:
        UsageError: if the file is not one.
    """
    fix = "copy the file again, or use the text as it is: --raw"
    with door(f"{path} is not a prompt template", fix):
        fields = json.loads(path.read_text("utf-8"))
        template = PromptTemplate(
            str(fields["kind"]),
            str(fields["template"]),
            bool(fields["complete"]),
            bool(fields.get("begins", True)),  # written since it may be false
        )
        if template.kind not in (PROMPT, CHAT):
            raise ValueError(f"unknown kind {template.kind!r}")
    return template
