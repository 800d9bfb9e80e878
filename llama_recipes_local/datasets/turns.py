"""A conversation in a record: its turns, the tools they may call, and which turns are trained.

``rows`` and ``generate`` read turns here; ``chat_examples`` makes text from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_recipes_local.datasets.base import as_text, is_blank
from llama_recipes_local.datasets.column_names import of_alternating
from llama_recipes_local.datasets.json_texts import FIX, read_json
from llama_recipes_local.datasets.marks import MARKS, NEGATED, turn_mark
from llama_recipes_local.datasets.templates import Message
from llama_recipes_local.datasets.thoughts import THOUGHTS
from llama_recipes_local.datasets.tool_calls import read_calls
from llama_recipes_local.errors import UsageError, refusal

# What data sets call the speakers, and what chat templates do.
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "prompter": "user",
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
_CALLS = ("tool_calls", "function_call")
_SPEAKERS, _WORDS = ("role", "from"), ("content", "value")
_FIX = "give each turn role and content, or from and value"
# A question and its answer in one turn, as some data sets have them.
_PAIRS = (
    *(("human", "assistant"), ("user", "assistant")),
    *(("input", "output"), ("question", "answer")),
)
_AS_TEXT = "train it as plain text: --local_dataset.format=text --local_dataset.columns=text=COLUMN"
_READ = {*_SPEAKERS, *_WORDS, *_CALLS}
# Types of the parts of a text, in OpenAI's two interfaces; a part may also have none.
_TEXTS = (None, "text", "input_text", "output_text")


@dataclass(frozen=True)
class Conversation:
    """Turns in the form that chat templates expect.

    Attributes:
        turns: the turns.
        marks: whether a turn is trained, by its number from 0, for turns with a mark.
        tools: the tools that the assistant may call.
    """

    turns: list[Message]
    marks: dict[int, bool] = field(default_factory=dict)
    tools: list[dict[str, Any]] = field(default_factory=list)  # a tool's JSON schema

    @property
    def shape(self) -> tuple[object, ...]:
        """Everything that a template sees of the conversation, except the words."""
        turns = tuple(
            (turn["role"], *turn, type(turn["content"]), "<think>" in str(turn["content"]))
            for turn in self.turns
        )
        return turns, tuple(self.marks.items()), bool(self.tools)

    def after(self, earlier: "Conversation") -> "Conversation":
        """Return the conversation with another's turns in front of its own."""
        before = len(earlier.turns)
        marks = earlier.marks | {before + number: mark for number, mark in self.marks.items()}
        return Conversation([*earlier.turns, *self.turns], marks, self.tools)


def is_turns(value: object) -> bool:
    """Return whether a value is a list of turns, and not a text."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


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
        fix = FIX if value.lstrip().startswith("[") else _AS_TEXT
        value = read_json(value, what, "a list of turns in JSON", fix)
    if not value:
        return None
    if not isinstance(value, list):
        raise refusal(f"{what} is not a list of turns", f"it is {value!r:.80}", _FIX)
    conversation = Conversation([])
    for number, turn in enumerate(_without_pairs(value), 1):
        where = f"turn {number} of {what}"
        message = _read_turn(turn, where)
        if _says_nothing(message):
            if message["role"] == "system":
                continue
            return None
        mark = turn_mark(turn, where)
        if mark is not None:
            conversation.marks[len(conversation.turns)] = mark
        conversation.turns.append(message)
    return conversation if conversation.turns else None


def _without_pairs(turns: list[Any]) -> list[Any]:
    """Return turns in which each question with its answer is split into two turns.

    A system prompt beside a pair comes before it.
    """
    found: list[Any] = []
    for turn in turns:
        keys = set(turn) - {"system"} if isinstance(turn, Mapping) else set()
        pair = next((pair for pair in _PAIRS if keys == set(pair)), ())
        if pair and turn.get("system"):
            found.append({"role": "system", "content": turn["system"]})
        roles = zip(("user", "assistant"), pair, strict=False)
        found += [{"role": role, "content": turn[name]} for role, name in roles] or [turn]
    return found


def read_history(value: object, what: str) -> Conversation | None:
    """Return what was said before a record: pairs of question and answer, or turns.

    None if a side is blank.

    Raises:
        UsageError: if it is neither.
    """
    if isinstance(value, str) and value.strip():
        value = read_json(value, what)
    pairs = value if isinstance(value, list) else [value]
    if all(isinstance(pair, Mapping) for pair in pairs):
        return read_conversation(pairs, what)
    turns: list[Message] = []
    for number, pair in enumerate(pairs, 1):
        if not (isinstance(pair, list | tuple) and len(pair) == 2):
            raise refusal(
                f"{what} is not a list of pairs",
                f"its entry {number} is {pair!r:.80}",
                'write [["question", "answer"], ...], or turns with role and content',
            )
        for role, words in zip(("user", "assistant"), pair, strict=True):
            text = as_text(words, f"entry {number} of {what}")
            if is_blank(text):
                return None
            turns.append({"role": role, "content": text})
    return Conversation(turns)


def _read_turn(turn: object, what: str) -> Message:
    """Return a turn in the form of templates: role, content, and further fields."""
    if not isinstance(turn, Mapping):
        column = what.partition("'")[2].partition("'")[0]
        fix = "write it with role and content"
        if isinstance(turn, str):
            fix = f"if the texts take turns, make messages of them: {of_alternating(column)}"
        raise refusal(f"{what} is not a turn", f"it is {turn!r:.80}", fix)
    speaker, words = _speaker(turn, what), _name_of_words(turn, what)
    role = ROLES[speaker]
    calls, content = _only(_CALLS, turn, what), turn.get(words)
    if speaker in _CALLERS and not calls:
        calls, content = content, None
    message: Message = {"role": role, "content": _content(content, role, f"{words!r} of {what}")}
    if calls:
        message["tool_calls"] = read_calls(calls, what)
    further = _further(turn, what)
    if further and not (calls or turn.keys() & set(_WORDS)):
        keys = ", ".join(map(str, turn))
        raise refusal(f"{what} has no content", f"its keys are {keys}", _FIX)
    return message | further


def _speaker(turn: Mapping[str, Any], what: str) -> str:
    """Return who says a turn, one of ``ROLES``.

    Beside ``role``, ``from`` says the same, or is a name of the data's own and a further field.

    Raises:
        UsageError: if nobody says it, somebody unknown, or two.
    """
    given = {name: turn[name] for name in _SPEAKERS if turn.get(name) is not None}
    if not given:
        keys = ", ".join(map(str, turn)) or "none"
        raise refusal(f"{what} has no speaker", f"its keys are {keys}", _FIX)
    named, *others = given.values()
    speaker = _known(named)
    if speaker is None:
        raise refusal(
            f"{what} has the unknown speaker {named!r:.80}",
            f"the speakers are {', '.join(ROLES)}",
            "rename the speaker, or remove such conversations",
        )
    for other in filter(None, map(_known, others)):
        if (ROLES[other], other in _CALLERS) != (ROLES[speaker], speaker in _CALLERS):
            raise _two_things(given, what)
    return speaker


def _known(named: object) -> str | None:
    """Return a speaker as ``ROLES`` has it; None if it has not."""
    speaker = named.strip().casefold() if isinstance(named, str) else ""
    return speaker if speaker in ROLES else None


def _name_of_words(turn: Mapping[str, Any], what: str) -> str:
    """Return what a turn calls its words: OpenAI's name or ShareGPT's."""
    _only(_WORDS, turn, what)
    return next((name for name in _WORDS if turn.get(name) is not None), _WORDS[0])


def _only(names: Sequence[str], turn: Mapping[str, Any], what: str) -> Any:
    """Return the value that a turn has under one of some names; None if it has none.

    Raises:
        UsageError: if it has several values.
    """
    given = {name: turn[name] for name in names if turn.get(name)}
    first, *others = given.values() or [None]
    if any(other != first for other in others):
        raise _two_things(given, what)
    return first


def _two_things(given: Mapping[str, Any], what: str) -> UsageError:
    said = " and ".join(f"{name} {value!r:.40}" for name, value in given.items())
    return refusal(f"{what} says two things", f"it has {said}", "keep one of them")


def _content(content: object, role: str, what: str) -> object:
    if role == "tool" and isinstance(content, Mapping):
        return dict(content)  # templates write it as JSON
    return as_text(_joined(content, what.partition(" of ")[2]), what)


def _further(turn: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return a turn's thoughts and the fields that a template may know of."""
    thoughts = _only(THOUGHTS, turn, what)
    kept = {"reasoning_content": thoughts} if thoughts else {}
    read = _READ.union(MARKS, NEGATED, THOUGHTS)
    if _known(turn.get("from")) is None:
        read.discard("from")
    return kept | {
        name: value for name, value in turn.items() if name not in read and value not in (None, "")
    }


def _says_nothing(message: Message) -> bool:
    """Return whether a turn is blank, which only the result of a tool may be."""
    if message["role"] == "tool" or message.get("tool_calls"):
        return False
    return is_blank(message["content"])


def _joined(content: object, what: str) -> object:
    """Return the text of content that is a list of parts; other content unchanged."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str) or part.get("type") not in _TEXTS:
            raise refusal(
                f"{what} has content that is not text",
                f"a part of its content is {part!r:.80}; each must be "
                '{"type": "text", "text": ...}',
                "remove such conversations",
            )
        texts.append(text)
    return "".join(texts)
