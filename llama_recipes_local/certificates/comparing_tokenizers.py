"""Finds differences between an export's tokenizer and its model's."""

import json
from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llama_recipes_local.certificates.shipped_texts import TEXTS

_NAMED = ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id")


def compared_texts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the texts to tokenise: sentences, and each special token."""
    return [*TEXTS, *tokenizer.get_added_vocab()]


def other_tokens(ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase) -> list[str]:
    """Return the texts and single tokens with other ids in the second tokenizer."""
    found = [
        text
        for text in compared_texts(ours)
        if ours(text)["input_ids"] != theirs(text)["input_ids"]
    ]
    known = theirs.get_vocab()
    vocabulary = ours.get_vocab()
    found += [token for token, number in vocabulary.items() if known.get(token) != number]
    words = ours.batch_decode([[number] for number in vocabulary.values()])
    first, second = (each(words, add_special_tokens=False)["input_ids"] for each in (ours, theirs))
    found += [word for word, a, b in zip(words, first, second, strict=True) if a != b]
    first, second = _added(ours), _added(theirs)
    for token in sorted(first.keys() | second.keys()):
        if first.get(token) != second.get(token):
            found.append(f"{token}, {second.get(token, 'plain')} for {first.get(token, 'plain')}")
    if _merges(ours) != _merges(theirs):
        found.append("the table of merges")
    return found


def other_settings(ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase) -> list[str]:
    """Return the special roles that have another token in the second tokenizer."""
    pairs = {name: (getattr(ours, name), getattr(theirs, name)) for name in _NAMED}
    return [f"{name} {b!r} for {a!r}" for name, (a, b) in pairs.items() if a != b]


def _added(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Return the tokens that are found before a text is split, and whether they are special."""
    added = tokenizer.added_tokens_decoder.values()
    return {each.content: "special" if each.special else "not special" for each in added}


def _merges(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return the merges of BPE; for SentencePiece the merged tokens in the order of scores.

    Pairs that make the same token have the same score.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    if model.get("byte_fallback"):
        return list(dict.fromkeys("".join(pair) for pair in model["merges"]))
    return model.get("merges")
