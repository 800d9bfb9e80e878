"""The thoughts of reasoning models: where a turn has them, and where a template removes them.

Templates of such models write earlier answers without thoughts, and may begin a thought in the
prompt for an answer. In the last turn of a conversation, thoughts are trained in any case.
"""

import re

from llama_recipes_local.datasets.templates import Chat, Message
from llama_recipes_local.errors import refusal

# What a turn's thoughts are called beside its content. Data is passed on with the first.
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
OPEN, CLOSE = "<think>", "</think>"
CUT = "thoughts of earlier turns, cut out by the chat template"
CUT_LAST = "thoughts of last turns, which the chat template does not write in training"
CLOSED = "thoughts of last turns, as the template's prompt ends them"
ADDED = "answers without thoughts after a prompt that begins one: an empty thought was added"
_THOUGHT = re.compile(rf"(?:\s*{OPEN})?(?P<body>.*?){CLOSE}(?P<gap>\s*)", re.DOTALL)
_BLOCK = re.compile(rf"(?:{OPEN}.*?)?{CLOSE}", re.DOTALL)
OTHER = "OtherThoughtsStandHere"
BEGUN = re.compile(rf"(?:{OPEN}\s*)?(?P<closed>{CLOSE}\s*)$|{OPEN}\s*$")
"""A thought at the end of a prompt: begun, closed, or just its closing, as DeepSeek-V3.1's."""


def in_content(turn: Message, chat: Chat) -> Message:
    """Return a turn with its thoughts in the place where the template expects them.

    Raises:
        UsageError: if the template has no place for thoughts outside the content.
    """
    thoughts = turn.get("reasoning_content")
    if not thoughts:
        return turn
    rest = {name: value for name, value in turn.items() if name != "reasoning_content"}
    name = _field_of(chat)
    if name:
        return rest | {name: thoughts}
    if not isinstance(thoughts, str) or "think>" not in chat.template:
        raise refusal(
            f"the chat template has no place for reasoning_content: {chat.where}",
            "the answer would be learned without its thoughts",
            f"write them into the content, as {OPEN}...{CLOSE}",
        )
    return rest | {"content": f"{OPEN}\n{thoughts.strip()}\n{CLOSE}\n\n{turn['content']}"}


def _field_of(chat: Chat) -> str:
    """Return the field of a turn in which the template reads thoughts; empty if it reads none.

    Its own words and switches may have the same names; ``turn.NAME`` or ``'NAME'`` reads a field.
    """
    reads = r"""\.{0}\b|(['"]){0}\1"""
    return next((name for name in THOUGHTS if re.search(reads.format(name), chat.template)), "")


def words_of(turn: Message) -> str:
    """Return a turn's words without its thoughts and surrounding white space."""
    content = turn["content"]
    if not isinstance(content, str):
        return ""
    if turn["role"] == "assistant":
        content = content.rpartition(CLOSE)[2]
    return content.strip()


def said_beside_thoughts(turn: Message) -> list[str]:
    """Return what an assistant's turn says before, between and after its thoughts."""
    content = turn["content"]
    if not isinstance(content, str):
        return []
    first, closed, rest = content.partition(CLOSE)
    if not closed:
        return [content]
    before = first.partition(OPEN)[0] if OPEN in first else ""  # else begun by the prompt
    return [before, *_BLOCK.split(rest)]


def without_thoughts(turn: Message) -> list[Message]:
    """Return forms of a turn that a template which cuts its thoughts out writes as the turn itself.

    They are the turn without them, also without the empty lines before the answer, which some
    templates remove, and with other thoughts, for those that write an empty one otherwise than
    none. There are no forms of a turn without thoughts.
    """
    if turn["role"] != "assistant":
        return []
    kept = {name: value for name, value in turn.items() if name not in THOUGHTS}
    content = kept["content"]
    if isinstance(content, str) and CLOSE in content:
        answer = content.rpartition(CLOSE)[2]
        words = dict.fromkeys((answer, answer.lstrip("\n"), f"{OPEN}{OTHER}{CLOSE}{answer}"))
        return [kept | {"content": form} for form in words]
    if kept == turn:
        return []
    return [kept, {name: OTHER if name in THOUGHTS else turn[name] for name in turn}]


def opens_thought(chat: Chat, turn: Message) -> bool:
    """Return whether a turn has thoughts, or the template may begin one."""
    return "think>" in chat.template or CLOSE in str(turn["content"])


def with_last_thoughts(text: str, prompted: str, turn: Message) -> tuple[str, str, list[str]]:
    """Return a conversation's text with the thoughts of its last turn, the assistant's.

    Args:
        text: the text as the template writes it.
        prompted: the text up to where the last turn begins, as generation is prompted.
        turn: the last turn.

    Returns:
        The text; the prompt that it begins with, empty if the template's own text is right; and
        notes on what is not as in the record.
    """
    begun = BEGUN.search(prompted)
    base = prompted[: begun.start()] if begun else prompted
    if not text.startswith(base):
        return text, "", []
    reply = text.removeprefix(prompted if text.startswith(prompted) else base)
    thought = _THOUGHT.match(turn["content"] or "")  # null beside calls
    body = thought["body"] if thought else str(turn.get("reasoning_content") or "")
    if begun and not begun["closed"] and text.startswith(prompted):
        # the template begins the thought, also where the turn begins one, or has none
        if reply.startswith(OPEN):
            return prompted + reply.removeprefix(OPEN).lstrip(), prompted, []
        if CLOSE in reply:
            return text, "", []
    elif text.startswith(prompted) and body.strip() in reply:
        return text, "", []
    if body.strip() and body.strip() in reply:
        return text, "", []  # written by the template, with other white space
    if begun and begun["closed"]:
        return prompted + reply.lstrip(), prompted, [CLOSED] if body.strip() else []
    if not thought and not begun:
        return text, "", []
    if begun and not thought and reply.startswith(OPEN):  # the template writes an empty one
        return prompted + reply.removeprefix(OPEN).lstrip(), prompted, [ADDED]
    if thought and OPEN in body:  # words before a thought, or a thought about thoughts
        return text, "", [CUT_LAST]
    gap = thought["gap"] if thought else "\n\n"
    answer = reply if reply[:1].isspace() else gap + reply
    if not begun:
        return base + OPEN + body + CLOSE + answer, base, []
    notes = [] if thought else [ADDED]
    # the prompt's white space after the token that begins a thought is kept, and the body's is not
    body = body.lstrip() if body.strip() else "\n"
    return prompted + body + CLOSE + answer, prompted, notes
