"""Turns a conversation into text with its trained spans; what is left out is noted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from llama_recipes_local.datasets.examples import Marked
from llama_recipes_local.datasets.placed_turns import find_system, find_turn
from llama_recipes_local.datasets.templates import (
    GENERATION,
    Chat,
    Message,
    Spans,
    find_template,
    for_tools,
)
from llama_recipes_local.datasets.thoughts import (
    CUT,
    OTHER,
    THOUGHTS,
    opens_thought,
    said_beside_thoughts,
    with_last_thoughts,
    without_thoughts,
    words_of,
)
from llama_recipes_local.datasets.turns import Conversation
from llama_recipes_local.datasets.written_turns import (
    as_written,
    gives,
    no_place,
    without_calls,
)
from llama_recipes_local.errors import UsageError, refusal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# What a template may leave out of a turn without changing what is said.
_ALWAYS_USED = {"role", "content", "tool_calls", "reasoning_content"}
OTHER_PROMPT = "prompts that generation begins with in another form than training"
CALLS = ("<\uff5ctool\u2581calls\u2581begin\uff5c>", "<\uff5ctool\u2581calls\u2581end\uff5c>")
"""DeepSeek's tokens around all calls of a turn."""
_MARKED_OTHERS = "marks on turns of others than the assistant, with labels=assistant"


def render_chat(
    messages: Sequence[Message] | Conversation,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    labels: str,
    where: str,
) -> Marked:
    """Return turns as a text with its trained spans.

    Args:
        messages: the turns, at least one; or a conversation.
        tokenizer: the model's; its special tokens are the template's.
        name: a template's, or "tokenizer" for the tokenizer's own.
        labels: "assistant" to train the assistant's turns, up to the token that ends each;
            "all" to train everything. Turns that are marked as not trained are left out.
        where: how the user knows the turns, for messages.

    Raises:
        UsageError: if the template is unknown, does not support the turns or something in them, or
            does not show where the assistant's words are.
    """
    given = messages if isinstance(messages, Conversation) else Conversation(list(messages))
    chosen = find_template(name, tokenizer)
    template = for_tools(chosen.text, tokenizer, given.tools)
    chat = Chat(template, tokenizer, where, tools=tuple(given.tools))
    rendered = _render(chat, given, labels)
    _check_calls_end(chat, rendered.text)
    if labels == "assistant":
        spans: Spans | None = rendered.assistant_spans()
        if any(mark and given.turns[i]["role"] != "assistant" for i, mark in given.marks.items()):
            rendered.notes.append(_MARKED_OTHERS)
    else:
        spans = rendered.all_but_unmarked()
    _check_nothing_is_lost(chat, rendered.turns, rendered.text, labels)
    return Marked(rendered.text, spans, chosen.complete, notes=tuple(rendered.notes))


@dataclass
class _Rendered:
    """A conversation's text, and what is needed to find turns in it.

    Attributes:
        chat: the template.
        turns: the turns that give the text, apart from ``prompted``'s end.
        marks: which turns say whether they are trained.
        text: the text.
        written: the text as the template writes it; the same but for the last turn's thoughts.
        prompted: what the last turn is prompted with, if that is not found by the template.
        blocks: the template's generation blocks, an assistant's turn each; empty if it has none.
        notes: what is not as in the record.
    """

    chat: Chat
    turns: list[Message]
    marks: Mapping[int, bool]
    text: str
    written: str
    prompted: str = ""
    blocks: Spans = ()
    notes: list[str] = field(default_factory=list)

    def assistant_spans(self) -> Spans:
        """Return the spans of the assistant's turns that are trained."""
        numbers = [n for n, turn in enumerate(self.turns) if turn["role"] == "assistant"]
        trained = [number for number in numbers if self.marks.get(number, True)]
        if len(self.blocks) == len(numbers):
            where = dict(zip(numbers, self.blocks, strict=True))
            return tuple(where[number] for number in trained)
        return tuple(self._said(number) for number in trained)

    def all_but_unmarked(self) -> Spans | None:
        """Return all the text but the turns that are marked as not trained; None if none are."""
        spans, start = [], 0
        for number in sorted(number for number, mark in self.marks.items() if not mark):
            first, end = self._stretch(number)
            spans.append((start, first))
            start = end
        if not spans:
            return None
        return tuple(span for span in [*spans, (start, len(self.text))] if span[0] < span[1])

    def _stretch(self, number: int) -> tuple[int, int]:
        """Return a turn's range, with the template's text around it, except an assistant's.

        Where a question's turn holds the system prompt, the question alone is its range.
        """
        if self.turns[number]["role"] == "assistant":
            return self._said(number)
        before = self.chat.render(self.turns[:number]) if number else ""
        until = self.chat.render(self.turns[: number + 1])
        first = len(before) if self.text.startswith(before) else self._said_beside(number - 1)[1]
        end = len(until) if self.text.startswith(until) else self._said_beside(number + 1)[0]
        words = words_of(self.turns[number])
        system = find_system(self.chat, self.turns, self.written) if number else None
        if system and first <= system[0] < end:
            first = system[1]
        if words in self.text and words not in self.text[first:end]:
            raise self._unknown_place()
        return first, end

    def _said_beside(self, number: int) -> tuple[int, int]:
        """Return the range of a turn that is next to another one, if it is an assistant's."""
        turns = dict(enumerate(self.turns))
        if number not in turns or turns[number]["role"] != "assistant":
            raise self._unknown_place()
        return self._said(number)

    def _said(self, number: int) -> tuple[int, int]:
        """Return an assistant's turn's range, without what generation is prompted with."""
        last = number + 1 == len(self.turns)
        until = self.text if last else self.chat.render(self.turns[: number + 1])
        start, same = None, True
        if last and self.prompted:
            start = len(self.prompted)
        elif self.text.startswith(until):
            start, same = _reply_start(self.chat, self.turns, number, until)
        if start is not None:
            self.notes += [OTHER_PROMPT] if last and not same else []
            return start, _turn_end(until, start, words_of(self.turns[number]))
        place = find_turn(self.chat, self.turns, number, self.written)
        if place is None:
            raise self._unknown_place()
        return place

    def _unknown_place(self) -> UsageError:
        return refusal(
            f"the chat template writes turns of {self.chat.where} in another way once more "
            "follow, or than it prompts for them",
            "so where the assistant's words begin and end is unknown",
            f"train on everything with --local_dataset.labels=all, where no turn is marked as not "
            f"trained, or name a template: {self.chat.another}",
        )


def _render(chat: Chat, given: Conversation, labels: str) -> _Rendered:
    """Return a conversation's text, with thoughts where they are trained, and notes on gaps."""
    notes: list[str] = []
    turns = as_written(chat, given.turns)
    blocks: Spans = ()
    if labels == "assistant" and GENERATION.search(chat.template):
        text, blocks = chat.render_marked(turns)
    else:
        text = chat.render(turns)
    notes += _unused_fields(chat, turns, text)
    turns, cut = _without_cut_thoughts(chat, turns, text)
    notes += [CUT] * cut
    written, prompted = text, ""
    if turns[-1]["role"] == "assistant" and len(turns) > 1 and opens_thought(chat, turns[-1]):
        before = chat.render(turns[:-1], open_turn=True)
        text, prompted, changed = with_last_thoughts(text, before, turns[-1])
        notes += changed
        if prompted:
            blocks = ()
    return _Rendered(chat, turns, given.marks, text, written, prompted, blocks, notes)


def _without_cut_thoughts(chat: Chat, turns: list[Message], text: str) -> tuple[list[Message], int]:
    """Return turns without the thoughts that the template cuts out of earlier ones, and how many.

    Each turn is tried: some templates keep the thoughts of all turns after the last question.
    """
    cut = 0
    for number, turn in enumerate(turns[:-1]):
        for shorter in without_thoughts(turn):
            shortened = [*turns[:number], shorter, *turns[number + 1 :]]
            if gives(chat, shortened, text):
                turns, cut = shortened, cut + 1
                break
    return turns, cut


def _unused_fields(chat: Chat, turns: Sequence[Message], text: str) -> list[str]:
    """Return a note for each field of turns that the template does not write."""
    further = sorted({name for turn in turns for name in turn} - _ALWAYS_USED)
    if not further:
        return []
    plain = [{name: v for name, v in turn.items() if name in _ALWAYS_USED} for turn in turns]
    if not gives(chat, plain, text):
        return []
    return [f"{name!r} of turns" for name in further]


def _check_nothing_is_lost(chat: Chat, turns: Sequence[Message], text: str, labels: str) -> None:
    """Refuse a template that omits something that is said.

    Raises:
        UsageError: with what the template omits.
    """
    bare = [without_calls(turn) for turn in turns]
    lost = ""
    if bare != list(turns) and gives(chat, bare, text):
        lost = "tool_calls"
    elif chat.tools and gives(replace(chat, tools=()), turns, text):
        lost = "tools"
    if lost:
        raise no_place(lost, chat)
    for speaker, words in _words(turns, labels):
        if words.strip() not in text and json.dumps(words, ensure_ascii=False)[1:-1] not in text:
            raise refusal(
                f"the chat template omits what the {speaker} says in {chat.where}",
                f"omitted is {words!r:.80}; its text is {text!r:.200}",
                f"name a template for text: {chat.another}",
            )


def _check_calls_end(chat: Chat, text: str) -> None:
    """Refuse a template that does not end tool calls, as DeepSeek-R1-Distill's leaves a single one.

    Raises:
        UsageError: with the token that is missing.
    """
    begin, end = CALLS
    if text.count(begin) > text.count(end):
        raise refusal(
            f"the chat template does not end the tool call in {chat.where}",
            f"it writes {begin} without {end}, and the model would learn not to stop after a call",
            f"have chat_template in the tokenizer's folder write {end} after the last call, or "
            "leave such rows out: --local_dataset.skip_bad_rows=True",
        )


def _words(turns: Sequence[Message], labels: str) -> Iterator[tuple[str, str]]:
    """Yield the texts that must appear: each speaker's words, and arguments of tool calls."""
    for number, turn in enumerate(turns):
        last = number + 1 == len(turns)
        if turn["role"] != "assistant":
            if isinstance(turn["content"], str):
                yield turn["role"], turn["content"]
        elif labels == "assistant" or last or turn.get("tool_calls"):
            yield from (("assistant", words) for words in said_beside_thoughts(turn))
        for name in THOUGHTS:
            if isinstance(turn.get(name), str) and turn[name] != OTHER:
                yield "assistant", turn[name]
        for call in turn.get("tool_calls", ()):
            yield "assistant", call["function"]["name"]
            arguments = call["function"].get("arguments")
            values = arguments.values() if isinstance(arguments, Mapping) else [arguments]
            yield from (("assistant", value) for value in values if isinstance(value, str))


def _reply_start(
    chat: Chat, turns: Sequence[Message], turn: int, until: str
) -> tuple[int | None, bool]:
    """Return where a reply begins, and whether generation begins with the text before it.

    None if it cannot be found.
    """
    if turn > 0:
        prompted = chat.render(turns[:turn], open_turn=True)
        if until.startswith(prompted):
            return len(prompted), True
        shared = _shared(prompted, until)
        # a prompt that begins a thought, before an answer without one
        rest = prompted[shared:].strip()
        if "".join(rest.split()) in ("", "<think>", "</think>", "<think></think>"):
            return shared, False
        return _start_beside_spaces(prompted, until), False
    # a chat that the assistant opens: there are no turns to prompt after, so look for the prompt
    prompt = chat.render(turns[:1], open_turn=True).removeprefix(until)
    found = until.find(prompt)
    return (found + len(prompt) if found >= 0 else None), True


def _start_beside_spaces(prompted: str, until: str) -> int | None:
    """Return where a text goes on after a prompt, if both differ in white space only.

    Hermes' template writes a line end after the result of a tool once more follows.
    """
    at = 0
    for letter in prompted:
        while at < len(until) and until[at].isspace() and until[at] != letter:
            at += 1
        if until[at : at + 1] == letter:
            at += 1
        elif not letter.isspace():
            return None
    return at


def _shared(one: str, other: str) -> int:
    """Return the length of the common beginning of two texts."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def _turn_end(until: str, start: int, content: str) -> int:
    """Return the end of a turn, without white space between its end token and the next turn.

    If no end token follows the words, the white space ends the turn and is kept.
    """
    said = until[start:].rstrip()
    ends_with_words = bool(content.strip()) and said.endswith(content.strip())
    return len(until) if ends_with_words else start + len(said)
