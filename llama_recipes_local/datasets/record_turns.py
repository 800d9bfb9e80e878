"""Turns that several columns of a record make up; ``rows`` reads them here."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llama_recipes_local.datasets.layouts import read_text
from llama_recipes_local.datasets.tool_calls import read_tools
from llama_recipes_local.datasets.turns import (
    Conversation,
    is_turns,
    read_conversation,
    read_history,
)
from llama_recipes_local.errors import refusal


def prompted_turns(
    values: Mapping[str, Any], named: Mapping[str, str], all_trained: bool
) -> Conversation | None:
    """Return a prompt and a completion, of which one at least is turns; None if one is blank.

    Args:
        values: the two, by "prompt" and "completion".
        named: how the user knows them, for messages.
        all_trained: whether answers in the prompt are trained too, as the completion is.

    Raises:
        UsageError: if one is neither turns nor text.
    """
    sides = []
    for role, speaker in (("prompt", "user"), ("completion", "assistant")):
        value = values[role]
        if not is_turns(value):
            text = read_text(value, named[role])
            value = text and [{"role": speaker, "content": text}]
        sides.append(read_conversation(value, named[role]))
    asked, said = sides
    if asked is None or said is None:
        return None
    if not all_trained:
        answers = (n for n, turn in enumerate(asked.turns) if turn["role"] == "assistant")
        asked = replace(asked, marks=dict.fromkeys(answers, False))
    return said.after(asked)


def with_context(
    conversation: Conversation, context: Mapping[str, tuple[str, Any]], where: str
) -> Conversation | None:
    """Return a conversation with the system prompt, the history and the tools of its record.

    None means that a turn of the history is blank.

    Args:
        conversation: the record's turns.
        context: columns and their values, by what they are: "system", "history" and "tools".
        where: the record's place.

    Raises:
        UsageError: if one is not of the form it should have, or there are two system prompts.
    """
    history: Conversation | None = Conversation([])
    system = None
    for what, (column, value) in context.items():
        named = f"{column!r} in {where}"
        if what == "tools":
            conversation = replace(conversation, tools=read_tools(value, named))
        elif what == "history":
            history = read_history(value, named)
        else:
            system = read_text(value, named)
    if history is None:
        return None
    whole = conversation.after(history)
    if system is None:
        return whole
    first = whole.turns[0]
    if first["role"] != "system":
        return whole.after(Conversation([{"role": "system", "content": system}]))
    if first["content"].strip() != system.strip():
        raise refusal(
            f"{where} has two system prompts",
            f"the turns begin with {first['content']!r:.80}, and its column has {system!r:.80}",
            "keep one of them",
        )
    return whole
