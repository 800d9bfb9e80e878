"""Reads the values of a GGUF file's header; each is checked before it is used.

An unknown key of the model or its tokenizer is refused, because it may change the meaning of
weights.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch

from llama_recipes_local.errors import UsageError, refusal
from llama_recipes_local.gguf_files.shape import PER_TURN, YARN, Shape, scaling_of_factors
from llama_recipes_local.gguf_files.vocabulary import (
    BYTE,
    BYTE_LEVEL,
    CONTROL,
    NORMAL,
    OTHER_ENDS,
    SENTENCEPIECE,
    SPLITTING,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
)

ARCHITECTURE_KEY, ARCHITECTURE = "general.architecture", "llama"
LARGEST, LONGEST = 2**20, 2**24
"""Limits of a size and of a context, in tokens; no model that is read here comes near them."""

SIZES = {
    "layers": "llama.block_count",
    "positions": "llama.context_length",
    "hidden": "llama.embedding_length",
    "intermediate": "llama.feed_forward_length",
    "heads": "llama.attention.head_count",
}
KEYS_AND_VALUES = "llama.attention.head_count_kv"
HEAD_SIZES = (
    "llama.rope.dimension_count",
    "llama.attention.key_length",
    "llama.attention.value_length",
)
ROWS = "llama.vocab_size"
EPSILON = "llama.attention.layer_norm_rms_epsilon"
THETA = "llama.rope.freq_base"
SCALING, SCALING_FACTOR = "llama.rope.scaling.type", "llama.rope.scaling.factor"
FIRST_CONTEXT = "llama.rope.scaling.original_context_length"
MODEL, SPLIT = "tokenizer.ggml.model", "tokenizer.ggml.pre"
TOKENS, KINDS = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
SCORES, MERGES = "tokenizer.ggml.scores", "tokenizer.ggml.merges"
IDS = {
    name: f"tokenizer.ggml.{name}_token_id"
    for name in ("bos", "eos", "unknown", "padding", *OTHER_ENDS)
}
ADD_BEGIN, ADD_END = "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"
SPACE_PREFIX = "tokenizer.ggml.add_space_prefix"
CHAT_TEMPLATE, CHAT_TEMPLATES = "tokenizer.chat_template", "tokenizer.chat_templates"
FURTHER = f"{CHAT_TEMPLATE}."

READ = (
    *SIZES.values(),
    *HEAD_SIZES,
    *IDS.values(),
    *(KEYS_AND_VALUES, ROWS, EPSILON, THETA, SCALING, SCALING_FACTOR, FIRST_CONTEXT),
    *(MODEL, SPLIT, TOKENS, KINDS, SCORES, MERGES),
    *(ADD_BEGIN, ADD_END, SPACE_PREFIX, CHAT_TEMPLATE, CHAT_TEMPLATES),
)
ADD_SEPARATOR = "tokenizer.ggml.add_sep_token"
"""What llama.cpp's converter writes for a tokenizer of pairs of texts; a Llama reads one text."""
_UNKEPT = re.compile(r"tokenizer\.ggml\.(fim_\w+|prefix|suffix|middle|mask|cls|seperator)_token_id")
"""Further roles of tokens: nothing is computed with them, and no folder has them."""
_KINDS = {
    BYTE_LEVEL: {NORMAL, CONTROL, USER_DEFINED, UNUSED},
    SENTENCEPIECE: {NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE},
}
_BYTES = [f"<0x{each:02X}>" for each in range(256)]
_BEGINS = {"llama-bpe", "default"}
"""Where a text begins with the begin token unless the file says otherwise."""


class Metadata:
    """The values of a GGUF file's header.

    Attributes:
        unkept: keys that a folder has no place for, and that change nothing else.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        """Take the values by key.

        Raises:
            UsageError: if a key of the model or its tokenizer is unknown.
        """
        self._values = values
        known = [key for key in values if key.startswith(("llama.", "tokenizer."))]
        self.unkept = sorted(filter(_UNKEPT.fullmatch, known))
        self._further = [key for key in known if key.startswith(FURTHER)]
        for key in sorted(set(known) - {*READ, *self.unkept, *self._further, ADD_SEPARATOR}):
            raise _wrong(key, values[key], "it is not known what it changes")
        if ADD_SEPARATOR in values:
            self._must_be(ADD_SEPARATOR, False)
        self._must_be(ARCHITECTURE_KEY, ARCHITECTURE)

    def shape(
        self,
        tied: bool = True,
        factors: torch.Tensor | None = None,
        attention_bias: bool = False,
        mlp_bias: bool = False,
    ) -> Shape:
        """Return the model's sizes.

        Args:
            tied: whether the file has no output layer.
            factors: divisors of the rotary frequencies, if the file has them.
            attention_bias: whether the file has biases of attention.
            mlp_bias: whether it has biases of the MLP.

        Raises:
            UsageError: if a value is missing, out of range or contradicts another.
        """
        limits = dict.fromkeys(SIZES, LARGEST) | {"positions": LONGEST}
        sizes = {name: self._size(key, high=limits[name]) for name, key in SIZES.items()}
        heads = sizes["heads"]
        head = self._head(sizes["hidden"], heads)
        theta = self._number(THETA, 1, 1e12) if THETA in self._values else 10000.0
        return Shape(
            **sizes,
            key_value_heads=self._size(KEYS_AND_VALUES, divides=heads)
            if KEYS_AND_VALUES in self._values
            else heads,
            head=head,
            vocabulary=self._rows(),
            rms_norm_eps=self._number(EPSILON, 0, 0.1),
            rope_theta=theta,
            scaling=self._scaling(theta, head, sizes["positions"], factors),
            tied=tied,
            attention_bias=attention_bias,
            mlp_bias=mlp_bias,
        )

    def vocabulary(self) -> Vocabulary:
        """Return the tokenizer.

        Raises:
            UsageError: if it is of another kind, incomplete, or has a token twice.
        """
        model = self._one_of(MODEL, (BYTE_LEVEL, SENTENCEPIECE))
        bytewise = model == BYTE_LEVEL
        splitting = self._one_of(SPLIT, SPLITTING) if bytewise else "default"
        tokens = self._texts(TOKENS)
        if len(set(tokens)) != len(tokens) or len(tokens) != self._rows():
            raise _wrong(TOKENS, len(tokens), "each id must have its own token")
        kinds = self._kinds(model, len(tokens))
        while kinds and kinds[-1] == UNUSED:  # rows of the embedding without a token
            del kinds[-1], tokens[-1]
        ids = {
            name: self._size(key, 0, len(tokens) - 1)
            for name, key in IDS.items()
            if key in self._values
        }
        if any(kinds[number] == NORMAL for number in ids.values()):
            raise _wrong(f"{IDS['bos']} and the like", ids, "one is a plain token")
        begins = splitting in _BEGINS and "bos" in ids
        return Vocabulary(
            model=model,
            splitting=splitting,
            tokens=tokens,
            kinds=kinds,
            scores=() if bytewise else self._scores(self._rows())[: len(tokens)],
            merges=self._merges(set(tokens)) if bytewise else (),
            begin=ids.get("bos"),
            end=ids.get("eos"),
            unknown=ids.get("unknown"),
            padding=ids.get("padding"),
            other_ends=[ids[name] for name in OTHER_ENDS if name in ids],
            add_begin=self._flag(ADD_BEGIN, begins),
            add_end=self._flag(ADD_END, False),
            space_prefix=self._flag(SPACE_PREFIX, not bytewise),
            chat_template=self._value(CHAT_TEMPLATE, str)
            if CHAT_TEMPLATE in self._values
            else None,
            further_templates=self._further_templates(),
        )

    def _further_templates(self) -> dict[str, str]:
        """Return the chat templates beside the default one; a folder has a file of each name."""
        for key in self._further:
            if not re.fullmatch(r"(?!default$)[A-Za-z0-9_-]{1,64}", key.removeprefix(FURTHER)):
                raise _wrong(key, self._values[key], "a template's name has letters and digits")
        return {key.removeprefix(FURTHER): self._value(key, str) for key in self._further}

    def _head(self, hidden: int, heads: int) -> int:
        """Return the width of a head, which must be even and the same in all keys."""
        said = {key: self._size(key) for key in HEAD_SIZES if key in self._values}
        head = next(iter(said.values()), hidden // heads)
        for key, value in said.items():
            if value != head:
                raise _wrong(key, value, f"another value says {head}")
        if head % 2 or (not said and hidden % heads):
            raise _wrong(SIZES["hidden"], hidden, f"{heads} heads must be of an even width")
        if len(said) < len(HEAD_SIZES) and head * heads != hidden:
            raise _wrong(HEAD_SIZES[0], head, f"{heads} heads must be {hidden} wide together")
        return head

    def _rows(self) -> int:
        return self._size(ROWS) if ROWS in self._values else len(self._texts(TOKENS))

    def _scaling(
        self, theta: float, head: int, positions: int, factors: torch.Tensor | None
    ) -> dict[str, Any]:
        kind = self._values.get(SCALING, "none")
        if kind not in ("none", PER_TURN, YARN):
            raise _wrong(SCALING, kind, "only 'linear' and 'yarn' are read")
        if kind != "none" and factors is not None:
            raise _wrong(SCALING, kind, "rope_freqs.weight says another scaling")
        for key, kinds in ((SCALING_FACTOR, (PER_TURN, YARN)), (FIRST_CONTEXT, (YARN,))):
            if key in self._values and kind not in kinds:
                raise _wrong(key, self._values[key], f"{SCALING} is {kind!r}")
        if kind != "none":
            found = {"rope_type": kind, "factor": self._number(SCALING_FACTOR, 0, 1e6)}
            if kind == YARN:
                found["original_max_position_embeddings"] = self._size(FIRST_CONTEXT, high=LONGEST)
            return found
        if factors is None:
            return {}
        of_llama_3 = scaling_of_factors(factors, theta, head, positions)
        if of_llama_3 is None:
            raise _wrong("rope_freqs.weight", factors.tolist(), "no scaling of Llama 3 makes them")
        return of_llama_3

    def _kinds(self, model: str, count: int) -> list[int]:
        kinds = self._value(KINDS, list)
        if len(kinds) != count or not set(kinds) <= _KINDS[model]:
            known = sorted(_KINDS[model])
            raise _wrong(KINDS, set(kinds), f"{count} tokens must be of the kinds {known}")
        if model == SENTENCEPIECE:
            found = zip(self._texts(TOKENS), kinds, strict=True)
            if sorted(token for token, kind in found if kind == BYTE) != _BYTES:
                raise _wrong(KINDS, BYTE, "<0x00> to <0xFF>, and no others, must be bytes")
            if kinds.count(UNKNOWN) > 1:
                raise _wrong(KINDS, UNKNOWN, "one token at most is the unknown one")
        return list(kinds)

    def _scores(self, count: int) -> list[float]:
        found = self._value(SCORES, list)
        if len(found) != count or not all(
            type(each) is float and math.isfinite(each) for each in found
        ):
            raise _wrong(SCORES, len(found), f"{count} tokens must have a finite score each")
        return found

    def _merges(self, known: set[str]) -> list[tuple[str, str]]:
        return [_pair(text, known) for text in self._texts(MERGES)]

    def _texts(self, key: str) -> list[str]:
        found = list(self._value(key, list))
        if not found or not all(isinstance(each, str) and each for each in found):
            raise _wrong(key, len(found), "it must be a list of texts")
        return found

    def _size(self, key: str, low: int = 1, high: int = LARGEST, *, divides: int = 0) -> int:
        """Return an integer in a range; it must divide ``divides``."""
        found = self._value(key, int)
        if not low <= found <= high:
            raise _wrong(key, found, f"it must be from {low} to {high}")
        if divides and divides % found:
            raise _wrong(key, found, f"it must divide {divides}")
        return int(found)

    def _number(self, key: str, above: float, up_to: float) -> float:
        """Return a number in the form it had before it was rounded to 32 bits."""
        import numpy as np

        found = self._value(key, float)
        if not (math.isfinite(found) and above < found <= up_to):
            raise _wrong(key, found, f"it must be above {above:g}, up to {up_to:g}")
        return float(str(np.float32(found)))

    def _flag(self, key: str, default: bool) -> bool:
        return bool(self._value(key, bool)) if key in self._values else default

    def _one_of(self, key: str, known: Any) -> str:
        found = str(self._value(key, str))
        if found not in known:
            raise _wrong(key, found, f"those that are read are {', '.join(known)}")
        return found

    def _must_be(self, key: str, expected: str | bool) -> None:
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
        raise _wrong(MERGES, text, "it is no pair of tokens that makes a token")
    return first, second


def _wrong(key: str, found: object, why: str) -> UsageError:
    fix = "take a GGUF file of a Llama as llama.cpp's own converter writes it"
    return refusal(f"the GGUF file has {key} {found!r:.80}", why, fix)
