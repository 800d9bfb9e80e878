"""A conversation as a record has it: its turns, the tools they may call, which are trained.

``rows`` and ``generate`` read turns here; ``chat_examples`` makes text of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_recipes_local.datasets.base import as_text, is_blank
from llama_recipes_local.datasets.templates import Message
from llama_recipes_local.errors import refusal

# What data sets call the speakers, and what chat templates do.
ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function_call": "assistant",
    "tool_call": "assistant",
}
# Speakers whose words are calls of tools, in JSON.
_CALLERS = ("function_call", "tool_call")
# Names of what says whether a turn is trained, and of what says that it is not.
MARKS = ("weight", "train", "training", "trainable", "loss", "loss_weight", "loss_mask")
_NEGATED_MARKS = ("masked",)
# What a turn's thoughts are called beside its content; passed on under the first name.
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_TRUE, _FALSE = (True, "true", "True", "1"), (False, "false", "False", "0")
_NAMES = (("role", "content"), ("from", "value"))
# A question and its answer in one turn, as some data sets have them.
_PAIRS = (
    *(("human", "assistant"), ("user", "assistant")),
    *(("input", "output"), ("question", "answer")),
)
_READ = {"role", "content", "from", "value", "tool_calls", "function_call"}


@dataclass(frozen=True)
class Conversation:
    """Turns, as chat templates take them.

    Attributes:
        turns: the turns.
        marks: whether a turn is trained, by its number from 0, for those that say so.
        tools: the tools that the assistant may call.
    """

    turns: list[Message]
    marks: dict[int, bool] = field(default_factory=dict)
    tools: list[dict[str, Any]] = field(default_factory=list)  # a tool's JSON schema

    @property
    def shape(self) -> tuple[object, ...]:
        """What a template sees of the conversation, but for what is said."""
        turns = tuple(
            (turn["role"], *turn, type(turn["content"]), "<think>" in str(turn["content"]))
            for turn in self.turns
        )
        return turns, tuple(self.marks.items()), bool(self.tools)

    def after(self, earlier: Sequence[Message]) -> "Conversation":
        """Return the conversation with turns before its own."""
        marks = {len(earlier) + number: mark for number, mark in self.marks.items()}
        return Conversation([*earlier, *self.turns], marks, self.tools)


def read_turns(value: object, what: str) -> list[Message] | None:
    """Return a conversation's turns; see ``read_conversation``."""
    conversation = read_conversation(value, what)
    return conversation.turns if conversation else None


def read_conversation(value: object, what: str) -> Conversation | None:
    """Return a conversation, or None if there are no turns or one of them is blank.

    A turn has ``role`` and ``content`` (OpenAI's names) or ``from`` and ``value`` (ShareGPT's),
    and perhaps calls of tools, thoughts and a mark that says whether it is trained; or it is a
    question and its answer. A blank system turn is skipped, and the rest of the conversation kept.

    Args:
        value: the turns, or their JSON text, as a cell of a CSV file holds it.
        what: names the value.

    Raises:
        UsageError: if a turn is not of this form, or its speaker is unknown.
    """
    if isinstance(value, str) and value.strip():
        value = read_json(value, what)
    if not value:
        return None
    if not isinstance(value, list):
        raise refusal(f"{what} is not a list of turns", f"it is {value!r:.80}")
    conversation = Conversation([])
    for number, turn in enumerate(_without_pairs(value), 1):
        where = f"turn {number} of {what}"
        message = _read_turn(turn, where)
        if _says_nothing(message):
            if message["role"] == "system":
                continue
            return None
        mark = _mark(turn, where)
        if mark is not None:
            conversation.marks[len(conversation.turns)] = mark
        conversation.turns.append(message)
    return conversation if conversation.turns else None


def _without_pairs(turns: list[Any]) -> list[Any]:
    """Return turns, each question with its answer as two, after a system prompt beside them."""
    found: list[Any] = []
    for turn in turns:
        keys = set(turn) - {"system"} if isinstance(turn, Mapping) else set()
        pair = next((pair for pair in _PAIRS if keys == set(pair)), ())
        if pair and turn.get("system"):
            found.append({"role": "system", "content": turn["system"]})
        roles = zip(("user", "assistant"), pair, strict=False)
        found += [{"role": role, "content": turn[name]} for role, name in roles] or [turn]
    return found


def read_history(value: object, what: str) -> list[Message]:
    """Return what was said before a record: pairs of a question and its answer, or turns.

    Raises:
        UsageError: if it is neither.
    """
    if isinstance(value, str) and value.strip():
        value = read_json(value, what)
    if not value:
        return []
    pairs = value if isinstance(value, list) else [value]
    if all(isinstance(pair, Mapping) for pair in pairs):
        return read_turns(value, what) or []
    turns: list[Message] = []
    for number, pair in enumerate(pairs, 1):
        if not (isinstance(pair, list | tuple) and len(pair) == 2):
            raise refusal(
                f"{what} is not a list of pairs",
                f"its entry {number} is {pair!r:.80}",
                'write [["question", "answer"], ...], or turns with role and content',
            )
        for role, words in zip(("user", "assistant"), pair, strict=True):
            turns.append({"role": role, "content": as_text(words, f"entry {number} of {what}")})
    return turns


def read_tools(value: object, what: str) -> list[dict[str, Any]]:
    """Return the tools that a record describes, each as ``{"type": "function", "function": ...}``.

    Raises:
        UsageError: if it is not a list of tools, or its JSON text.
    """
    if isinstance(value, str) and value.strip():
        value = read_json(value, what)
    if not value or (isinstance(value, str) and is_blank(value)):
        return []
    tools: list[Any] = value if isinstance(value, list) else [value]
    for tool in tools:
        if not isinstance(tool, Mapping):
            raise refusal(f"{what} is not a list of tools", f"one is {tool!r:.80}")
    return [_whole_tool(dict(tool)) for tool in tools]


def _whole_tool(tool: dict[str, Any]) -> dict[str, Any]:
    return tool if "function" in tool else {"type": "function", "function": tool}


def read_json(text: str, what: str) -> Any:
    """Return the value of a JSON text, as a cell of a CSV file holds it; ``what`` names it.

    Raises:
        UsageError: if it is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise refusal(
            f"{what} is text, not a list of turns in JSON"
            if "tool" not in what and "history" not in what
            else f"{what} is text, not JSON",
            f"{error}; it begins {text!r:.80}",
            "train it as plain text: --local_dataset.format=text "
            "--local_dataset.columns=text=COLUMN",
        ) from error


def _read_turn(turn: object, what: str) -> Message:
    """Return a turn as templates take it: role, content, and what else it has."""
    if not isinstance(turn, Mapping):
        raise refusal(f"{what} is not a turn", f"it is {turn!r:.80}")
    names = [names for names in _NAMES if turn.get(names[0]) is not None]
    if not names:
        raise refusal(
            f"{what} has no speaker",
            f"its keys are {', '.join(map(str, turn)) or 'none'}",
            "give each turn role and content, or from and value",
        )
    speaker, words = names[0]
    named = turn[speaker]
    role = ROLES.get(named) if isinstance(named, str) else None
    if role is None:
        raise refusal(
            f"{what} has the unknown speaker {named!r:.80}",
            f"the speakers are {', '.join(ROLES)}",
            "rename the speaker, or remove such conversations",
        )
    calls = turn.get("tool_calls") or turn.get("function_call")
    content = turn.get(words)
    if named in _CALLERS and not calls:
        calls, content = content, None
    message: Message = {"role": role, "content": _content(content, role, f"{words!r} of {what}")}
    if calls:
        message["tool_calls"] = _read_calls(calls, what)
    return message | _further(turn)


def _content(content: object, role: str, what: str) -> object:
    if role == "tool" and isinstance(content, Mapping):
        return dict(content)  # templates write it as JSON
    return as_text(_joined(content, what.partition(" of ")[2]), what)


def _further(turn: Mapping[str, Any]) -> dict[str, Any]:
    """Return a turn's thoughts and the fields that a template may know of."""
    thoughts = [turn[name] for name in THOUGHTS if turn.get(name)]
    kept = {"reasoning_content": thoughts[0]} if thoughts else {}
    read = _READ.union(MARKS, _NEGATED_MARKS, THOUGHTS)
    return kept | {
        name: value for name, value in turn.items() if name not in read and value not in (None, "")
    }


def _says_nothing(message: Message) -> bool:
    """Whether a turn is blank; the result of a tool may be."""
    if message["role"] == "tool" or message.get("tool_calls"):
        return False
    return is_blank(message["content"])


def _read_calls(value: object, what: str) -> list[dict[str, Any]]:
    """Return calls of tools, their arguments as objects, as chat templates take them."""
    if isinstance(value, str):
        value = read_json(value, f"the tool call in {what}")
    calls = []
    given: list[Any] = value if isinstance(value, list) else [value]
    for call in given:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise refusal(
                f"{what} has a tool call without a name",
                f"it is {call!r:.80}",
                'write {"function": {"name": ..., "arguments": ...}}',
            )
        function = dict(function)
        if isinstance(function.get("arguments"), str):
            function["arguments"] = _object_of(function["arguments"])
        about = {k: v for k, v in call.items() if k not in ("function", *function) and v}
        calls.append({"type": "function", **about, "function": function})
    return calls


def _object_of(arguments: str) -> object:
    """Return arguments as an object where their text is one: templates write them as JSON."""
    try:
        read = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return read if isinstance(read, dict) else arguments


def _mark(turn: Mapping[str, Any], what: str) -> bool | None:
    """Return whether a turn says that it is trained; None if it does not say.

    Raises:
        UsageError: if what it says is neither yes nor no, or both.
    """
    said: dict[str, bool] = {}
    for name in (*MARKS, *_NEGATED_MARKS):
        value = turn.get(name)
        if value is None:
            continue
        if value not in _TRUE and value not in _FALSE:
            raise refusal(
                f"{what} has {name} {value!r:.80}",
                "a turn is trained or it is not: 1 and true, or 0 and false",
                f"round {name} to 0 or 1",
            )
        said[name] = (value in _TRUE) != (name in _NEGATED_MARKS)
    if len(set(said.values())) > 1:
        raise refusal(
            f"{what} is marked as trained and as not trained",
            ", ".join(f"{name} is {turn[name]!r}" for name in said),
            "keep one of them",
        )
    return next(iter(said.values()), None)


def _joined(content: object, what: str) -> object:
    """Return the text of content that is a list of parts; other content as it is."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str) or part.get("type") != "text":
            raise refusal(
                f"{what} has content that is not text",
                f"a part of its content is {part!r:.80}; each must be "
                '{"type": "text", "text": ...}',
                "remove such conversations",
            )
        texts.append(text)
    return "".join(texts)
