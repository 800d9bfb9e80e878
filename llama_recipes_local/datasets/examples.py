"""Examples: the text of a record, and which parts of it are trained.

``notes`` list what was left out of a record or added to it; the audit counts them.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Pair:
    """A prompt and its response, tokenised separately, so that no token spans both.

    The text begins with the begin-of-text token, if the tokenizer adds one, and ends with the
    end-of-text token. The response and that end are labels.

    Attributes:
        prompt: the prompt.
        response: the response.
        begins: whether there is a begin-of-text token even if the tokenizer adds none, as upstream
            writes it.
    """

    prompt: str
    response: str
    begins: bool = False
    notes: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Continuation:
    """A prompt and its response tokenised as one text, as upstream does for Alpaca.

    The tokens after the prompt's, and the end of text, are labels. If a token would span both,
    prompt and response are tokenised separately, because generation begins with the prompt's own
    tokens.
    """

    prompt: str
    response: str
    notes: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Marked:
    """A text of which some spans are trained.

    Attributes:
        text: the text.
        spans: (start, end) characters of each trained span, in order; None means all of it.
        complete: whether the text has its own special tokens, as a chat template's does; if
            not, the beginning-of-text token, if the tokenizer's texts have one, and the end-of-text
            token are added, and the end is a label if the last span reaches it.
    """

    text: str
    spans: tuple[tuple[int, int], ...] | None = None
    complete: bool = False
    notes: tuple[str, ...] = field(default=(), compare=False)


Example = Pair | Continuation | Marked
