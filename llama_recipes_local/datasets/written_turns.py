"""Turns in the form in which a chat template writes them, for training and for prompts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llama_recipes_local.datasets.templates import Chat, Message
from llama_recipes_local.datasets.thoughts import in_content
from llama_recipes_local.errors import UsageError, caught, refusal


def as_written(chat: Chat, turns: Sequence[Message]) -> list[Message]:
    """Return turns with thoughts and results of tools where and as the template takes them.

    Raises:
        UsageError: if the template has no place for thoughts that are apart from the content.
    """
    placed = [in_content(turn, chat) for turn in turns]
    return _with_written_results(chat, _with_written_calls(chat, placed))


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


def _with_written_calls(chat: Chat, turns: list[Message]) -> list[Message]:
    """Return turns with calls as the template takes them: as objects, or else as OpenAI has them.

    There arguments are JSON text, and the content beside calls is null: DeepSeek's templates fail
    at objects, and leave out calls beside a content, though it is empty.
    """
    if not any(turn.get("tool_calls") for turn in turns):
        return turns
    forms = (turns, *_openai_forms(turns))
    return next((form for form in forms if _writes_calls(chat, form)), turns)


def _writes_calls(chat: Chat, turns: list[Message]) -> bool:
    """Return whether the template supports turns, and not as if they had no calls."""
    with caught():
        text = chat.render(turns)
        return not gives(chat, [without_calls(turn) for turn in turns], text)
    return False


def gives(chat: Chat, turns: Sequence[Message], text: str) -> bool:
    """Return whether the template writes turns as a text; not if it does not support them."""
    with caught():
        return chat.render(turns) == text
    return False


def without_calls(turn: Message) -> Message:
    """Return a turn that calls no tool."""
    return {name: value for name, value in turn.items() if name != "tool_calls"}


def _openai_forms(turns: list[Message]) -> Iterator[list[Message]]:
    """Yield turns with arguments of calls as JSON text, and then without empty contents too."""
    texts = [
        turn | {"tool_calls": [_with_text(call) for call in turn["tool_calls"]]}
        if turn.get("tool_calls")
        else turn
        for turn in turns
    ]
    yield texts
    yield [
        turn | {"content": turn["content"] or None} if turn.get("tool_calls") else turn
        for turn in texts
    ]


def _with_text(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
    return call | {"function": function | {"arguments": arguments}}


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
