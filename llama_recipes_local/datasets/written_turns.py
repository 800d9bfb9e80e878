"""Turns in the form in which a chat template writes them, for training and for prompts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from llama_recipes_local.datasets.templates import Chat, Message
from llama_recipes_local.datasets.thoughts import in_content
from llama_recipes_local.errors import UsageError, caught, refusal


def as_written(chat: Chat, turns: Sequence[Message]) -> list[Message]:
    """Return turns with thoughts and results of tools where and as the template takes them.

    Raises:
        UsageError: if the template has no place for thoughts that are apart from the content.
    """
    return _with_written_results(chat, [in_content(turn, chat) for turn in turns])


def render_prompt(chat: Chat, turns: Sequence[Message]) -> str:
    """Return turns up to where the assistant's next words begin, as training writes them.

    Raises:
        UsageError: if the template does not support the turns, or has no place for the tools.
    """
    written = as_written(chat, turns)
    text = chat.render(written, open_turn=True)
    if chat.tools and text == replace(chat, tools=()).render(written, open_turn=True):
        raise no_place("tools", chat)
    return text


def no_place(lost: str, chat: Chat) -> UsageError:
    """Return the error that a template does not write something."""
    return refusal(
        f"the chat template has no place for {lost}: {chat.where}",
        f"without {lost} the model would be trained or asked for something else",
        "use a model whose chat template writes them",
    )


def _with_written_results(chat: Chat, turns: list[Message]) -> list[Message]:
    """Return turns in which results of tools are JSON text, unless the template writes objects."""
    results = [turn["content"] for turn in turns if isinstance(turn["content"], Mapping)]
    if not results:
        return turns
    with caught():  # a template that takes text alone
        text = chat.render(turns)
        if all(json.dumps(result, ensure_ascii=False) in text for result in results):
            return turns
    return [
        turn | {"content": json.dumps(turn["content"], ensure_ascii=False)}
        if isinstance(turn["content"], Mapping)
        else turn
        for turn in turns
    ]
