"""Converts texts to token ids, in one place for training, inspection, evaluation and generation.

The ids are those of the tokenizer's reference. SentencePiece marks the space before the first word
of a text, and encodes what follows a begin token as a separate text. transformers marks only the
beginning of the string, and takes a space there for the mark. So a text is encoded in parts, each
from one begin token to the next. With a tokenizer without this mark, the text is encoded as it is.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers
from transformers import LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llama_recipes_local.datasets.long_texts import PIECE, pieces
from llama_recipes_local.errors import refusal
from llama_recipes_local.models.tokenizer_rules import component

# A token's first character and the one after its last.
Offsets = Sequence[tuple[int, int]]
AROUND = 256  # characters on each side of a cut that are looked at
MARKED = (" ", "\N{LOWER ONE EIGHTH BLOCK}")  # what transformers takes for the mark


def begin_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the token that a tokenizer adds at the beginning of texts; "" if it adds none.

    A Llama tokenizer whose configuration does not say adds one.
    """
    bos = tokenizer.bos_token
    if not bos:
        return ""
    if isinstance(tokenizer, LlamaTokenizer) and tokenizer.init_kwargs.get("add_bos_token") is None:
        return str(bos)
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        empty = _backend(tokenizer).encode("").ids
    else:
        empty = tokenizer("")["input_ids"]
    return str(bos) if empty[:1] == [tokenizer.bos_token_id] else ""


def begun(text: str, tokenizer: PreTrainedTokenizerBase, always: bool = False) -> str:
    """Return a text with its begin token, which it may contain already.

    Args:
        text: the text.
        tokenizer: the model's.
        always: whether to add it even if the tokenizer adds none, as upstream writes it.
    """
    token = (tokenizer.bos_token or "") if always else begin_token(tokenizer)
    return text if token and text.startswith(token) else token + text


def text_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of whole texts; nothing is added, and a doubled begin token becomes one."""
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        if any(len(text) > PIECE for text in texts):
            return [_long_ids(tokenizer, text) for text in texts]
        return _short_ids(tokenizer, texts)
    options: dict[str, Any] = {"add_special_tokens": False, "verbose": False}
    return tokenizer(list(texts), **options)["input_ids"] if texts else []


def _short_ids(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    if _begins_with_mark(tokenizer):
        return [ids for ids, _ in _in_parts(tokenizer, texts)]
    backend = _backend(tokenizer)
    single = [_with_one_begin(text, tokenizer) for text in texts]
    return [each.ids for each in backend.encode_batch_fast(single, add_special_tokens=False)]


def _long_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Return the ids of a text, tokenised in pieces if it is long and can be cut."""
    parts = pieces(tokenizer, text)
    if not all(map(partial(_can_part, tokenizer), parts, parts[1:])):
        parts = [text]
    ids = _short_ids(tokenizer, parts[:1])[0]
    for part in parts[1:]:
        ids += continued_ids(tokenizer, part)
    return ids


def _can_part(tokenizer: PreTrainedTokenizerFast, before: str, after: str) -> bool:
    """Return whether the texts on both sides of a cut have the same ids as together."""
    before, after = before[-AROUND:], after[:AROUND]
    apart = continued_ids(tokenizer, before) + continued_ids(tokenizer, after)
    return continued_ids(tokenizer, before + after) == apart


def text_ids_and_offsets(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> list[tuple[list[int], Offsets]]:
    """Return the ids of whole texts, and the range of characters of each token.

    Raises:
        UsageError: if the tokenizer has no character offsets.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise refusal(
            f"{type(tokenizer).__name__} has no character offsets of tokens",
            "they show which tokens of a text are trained",
            "use a folder with a tokenizer.json, or train on all with --local_dataset.labels=all",
        )
    if _begins_with_mark(tokenizer):
        return _in_parts(tokenizer, texts)
    single = [_with_one_begin(text, tokenizer) for text in texts]
    encodings = _backend(tokenizer).encode_batch(single, add_special_tokens=False)
    return [
        (each.ids, _shifted(each.offsets, len(text) - len(one)))
        for each, text, one in zip(encodings, texts, single, strict=True)
    ]


def continued_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of a text that follows other tokens."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return text_ids(tokenizer, [text])[0]
    return continued_ids_and_offsets(tokenizer, text)[0]


def continued_ids_and_offsets(
    tokenizer: PreTrainedTokenizerBase, text: str
) -> tuple[list[int], Offsets]:
    """Return the ids of a text that follows other tokens, and each token's characters."""
    assert isinstance(tokenizer, PreTrainedTokenizerFast), "others have no offsets"
    with _without_mark(_backend(tokenizer)) as backend:
        encoding = backend.encode(text, add_special_tokens=False)
    return encoding.ids, encoding.offsets


def _in_parts(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]
) -> list[tuple[list[int], Offsets]]:
    """Encode each text in parts, from one begin token to the next, each with its own mark."""
    bos, bos_id = str(tokenizer.bos_token or ""), tokenizer.bos_token_id
    cut = [_with_one_begin(text, tokenizer).split(bos) if bos else [text] for text in texts]
    parts = [" " + part if part.startswith(MARKED) else part for each in cut for part in each]
    encodings = iter(_backend(tokenizer).encode_batch(parts, add_special_tokens=False))
    remaining = iter(parts)
    found: list[tuple[list[int], Offsets]] = []
    for text, between in zip(texts, cut, strict=True):
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        start = len(text) - len(bos.join(between))
        for number, piece in enumerate(between):
            if number:
                ids.append(bos_id)
                offsets.append((start, start + len(bos)))
                start += len(bos)
            encoding, added = next(encodings), len(next(remaining)) - len(piece)
            ids += encoding.ids
            offsets += _shifted(encoding.offsets, start - added, start)
            start += len(piece)
        found.append((ids, offsets))
    return found


def _shifted(offsets: Offsets, by: int, least: int = 0) -> list[tuple[int, int]]:
    return [(max(start + by, least), max(end + by, least)) for start, end in offsets]


def _with_one_begin(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a text that begins with one begin token at most."""
    bos = str(tokenizer.bos_token or "")
    while bos and text.startswith(bos + bos):
        text = text[len(bos) :]
    return text


def _begins_with_mark(tokenizer: PreTrainedTokenizerFast) -> bool:
    rule = tokenizer.backend_tokenizer.pre_tokenizer
    return isinstance(rule, pre_tokenizers.Metaspace) and rule.prepend_scheme != "never"


def _backend(tokenizer: PreTrainedTokenizerFast) -> Any:
    """Return the tokenizer inside transformers' wrapper, which takes half as long again."""
    backend = tokenizer.backend_tokenizer
    # a tokenizer.json may ask for these, and the wrapper turns them off as well
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = False
    return backend


@contextmanager
def _without_mark(backend: Tokenizer) -> Iterator[Tokenizer]:
    """Make the tokenizer put no space before a text."""
    own = backend.normalizer, backend.pre_tokenizer
    try:
        for name, rule in zip(("normalizer", "pre_tokenizer"), own, strict=True):
            if rule is not None:
                setattr(backend, name, component(name, _unmarked(json.loads(rule.__getstate__()))))
        yield backend
    finally:
        backend.normalizer, backend.pre_tokenizer = own


def _unmarked(rule: Any) -> Any:
    """Return a rule of a tokenizer.json that puts no space before a text; None for no rule."""
    if rule["type"] == "Prepend":
        return None
    if rule["type"] == "Sequence":
        (key,) = set(rule) - {"type"}
        return rule | {key: [each for each in map(_unmarked, rule[key]) if each]}
    changed = {"prepend_scheme": "never", "add_prefix_space": False}
    return {key: changed.get(key, value) for key, value in rule.items()}
