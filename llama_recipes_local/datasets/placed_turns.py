"""Where a turn is in a conversation that its template writes in another way once more follow."""

from collections.abc import Sequence

from llama_recipes_local.datasets.templates import Chat, Message
from llama_recipes_local.datasets.thoughts import BEGUN, OPEN, words_of
from llama_recipes_local.errors import UsageError

# Words that stand in the place of a turn's own, and of those of the turn before it.
_OWN, _EARLIER = "OwnWordsStandHere", "EarlierWordsStandHere"


def find_turn(
    chat: Chat, turns: Sequence[Message], number: int, text: str
) -> tuple[int, int] | None:
    """Return where an assistant's turn is, from after what a reply is prompted with to its end.

    The conversation is written once more with other words in that turn: what then stands before and
    after them is what stands around the turn. None means that it is not known.

    Args:
        chat: the template.
        turns: the turns.
        number: the turn's, from 0; what one that opens a chat is prompted with is not known.
        text: the turns' text.
    """
    if number == 0:
        return None
    try:
        return _find(chat, turns, number, text)
    except UsageError:  # the template does not support the other words
        return None


def find_system(chat: Chat, turns: Sequence[Message], text: str) -> tuple[int, int] | None:
    """Return where the words of the system turn that comes first are; None if it is not known.

    Some templates write them inside a question's turn: Llama 2's the first, Mistral's the last.

    Args:
        chat: the template.
        turns: the turns.
        text: the turns' text.
    """
    if turns[0]["role"] != "system":
        return None
    before, found, after = chat.render([turns[0] | {"content": _OWN}, *turns[1:]]).partition(_OWN)
    if not (found and text.startswith(before) and text.endswith(after)):
        return None
    return len(before), len(text) - len(after)


def _find(chat: Chat, turns: Sequence[Message], number: int, text: str) -> tuple[int, int] | None:
    own, rest = _with_own(turns[number]), turns[number + 1 :]
    earlier = [*turns[: number - 1], turns[number - 1] | {"content": _EARLIER}]
    before, found, after = chat.render([*turns[:number], own, *rest]).partition(_OWN)
    between = _after_earlier(chat.render([*earlier, own, *rest]).partition(_OWN)[0])
    prompt = _after_earlier(chat.render(earlier, open_turn=True))
    ending = _ending(chat, [*turns[:number], own], after)
    begun = BEGUN.search(prompt)
    base = prompt[: begun.start()] if begun else prompt
    if not (found and between.startswith(base) and before.endswith(between)):
        return None
    start, end = len(before) - len(between) + len(base), len(text) - len(after) + len(ending)
    around = text.startswith(before[:start]) and text.endswith(after[len(ending) :])
    if not (around and after.startswith(ending) and words_of(turns[number]) in text[start:end]):
        return None
    if begun and text.startswith(OPEN, start):
        whole = text.startswith(begun[0], start)
        if begun["closed"] and not whole:
            return None
        start += len(begun[0] if whole else OPEN)
    return start, end


def _ending(chat: Chat, turns: Sequence[Message], after: str) -> str:
    """Return what ends the last of the turns, with its own words, where more follow.

    If they are all, another token may end it or follow: gpt-oss' <|return|>, Phi-3's end of text.
    Before a prompt it ends as before a turn.
    """
    ending = chat.render(turns).rpartition(_OWN)[2]
    if not after.startswith(ending.rstrip()):
        closed, asked = chat.render(turns[:-1]), chat.render(turns[:-1], open_turn=True)
        if not asked.startswith(closed):
            closed = closed.removesuffix(str(chat.tokenizer.eos_token))
        begins = asked.removeprefix(closed)
        ending = chat.render(turns, open_turn=True).rpartition(_OWN)[2].removesuffix(begins)
    return ending.rstrip() or ending


def _with_own(turn: Message) -> Message:
    """Return an assistant's turn that says other words, or calls a tool of another name."""
    if not turn.get("tool_calls"):
        return {"role": turn["role"], "content": _OWN}
    first, *others = turn["tool_calls"]
    named = first | {"function": first["function"] | {"name": _OWN}}
    return turn | {"tool_calls": [named, *others]}


def _after_earlier(text: str) -> str:
    return text.rpartition(_EARLIER)[2]
