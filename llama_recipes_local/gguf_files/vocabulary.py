"""A tokenizer in the form that a GGUF file stores: byte-level BPE or SentencePiece."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BYTE_LEVEL, SENTENCEPIECE = "gpt2", "llama"
"""The two kinds, by llama.cpp's names."""

OTHER_ENDS = ("eot", "eom")
"""Of a turn and of a message, by GGUF's names; llama.cpp ends an answer at each of them."""

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Kinds of tokens; SentencePiece's numbers."""

DIGITS = {"type": "Digits", "individual_digits": True}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLIT = {
    "type": "Split",
    "pattern": {"Regex": LLAMA_3},
    "behavior": "Isolated",
    "invert": False,
}

SPLITTING = {
    "llama-bpe": {"type": "Sequence", "pretokenizers": [_SPLIT, BYTES | {"use_regex": False}]},
    "smollm": {"type": "Sequence", "pretokenizers": [DIGITS, BYTES]},
    "gpt-2": BYTES,
}
"""How texts are split before merging, by llama.cpp's name of it; as ``tokenizers`` has it in JSON.

transformers' own reading of GGUF splits as GPT-2 does, whatever the file says: with ``smollm`` it
makes one token of ``20`` and so gives the model ids that it has rarely seen.
"""
WHOLE_WORDS = {"llama-bpe"}
"""Where a word that is a token is not merged (``ignore_merges``)."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """A tokenizer.

    Attributes:
        model: one of the two kinds.
        splitting: a key of ``SPLITTING``; "default" for SentencePiece.
        tokens: each token's text by id; of byte-level tokens in the alphabet of bytes.
        kinds: each token's kind.
        scores: each token's score; empty for byte-level BPE.
        merges: pairs of tokens, the first merge first; empty for SentencePiece.
        begin: id of the token that begins a text; ``end``, ``unknown`` and ``padding`` likewise.
        end: id of the token that ends a text.
        unknown: id of the token for what is in no vocabulary.
        padding: id of the token that fills rows.
        other_ends: ids of other tokens that end an answer, two at most.
        add_begin: whether a text begins with ``begin``.
        add_end: whether a text ends with ``end``.
        space_prefix: whether a text begins with a space.
        chat_template: the Jinja template; None without one.
        further_templates: other chat templates, such as that for tools, by name.
    """

    model: str
    splitting: str
    tokens: Sequence[str]
    kinds: Sequence[int]
    scores: Sequence[float] = ()
    merges: Sequence[tuple[str, str]] = ()
    begin: int | None = None
    end: int | None = None
    unknown: int | None = None
    padding: int | None = None
    other_ends: Sequence[int] = ()
    add_begin: bool = False
    add_end: bool = False
    space_prefix: bool = False
    chat_template: str | None = None
    further_templates: Mapping[str, str] = field(default_factory=dict)

    def templates(self) -> Any:
        """Return the chat template; of several, all by name, as transformers has them; or None."""
        if not self.further_templates:
            return self.chat_template
        default = {} if self.chat_template is None else {"default": self.chat_template}
        return default | dict(self.further_templates)

    def ids(self) -> dict[str, int]:
        """Return the ids of the special tokens that there are, by GGUF's names."""
        named = {
            "bos": self.begin,
            "eos": self.end,
            "unknown": self.unknown,
            "padding": self.padding,
        }
        named |= dict(zip(OTHER_ENDS, self.other_ends, strict=False))
        return {name: number for name, number in named.items() if number is not None}
