"""What a record becomes: a text, and which parts of it are trained.

``notes`` say what of the record is not in it, or was added; they are counted in the audit.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Pair:
    """A prompt and its response, tokenised apart, so that no token spans both.

    The text begins with the beginning-of-text token, if the tokenizer's texts do, and ends with the
    end-of-text token; the response and that end are labels.

    Attributes:
        prompt: the prompt.
        response: the response.
        begins: whether there is a beginning-of-text token even if the tokenizer's texts have none,
            as upstream writes it.
    """

    prompt: str
    response: str
    begins: bool = False
    notes: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Continuation:
    """A prompt and its response tokenised as one text, as upstream does for Alpaca.

    The labels are what follows the prompt's tokens, and the end of text. Where a token would span
    both, they are tokenised apart, because generation begins with the prompt's own tokens.
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
