"""Converts the tokenizer of a model's folder to the form that a GGUF file stores."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llama_recipes_local.errors import UsageError, refusal
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
    WHOLE_WORDS,
    Vocabulary,
)
from llama_recipes_local.models.tokenizer_rules import MARK, MODEL, SPACE_BEFORE, SPACES, component

FIX = "export it as safetensors, which keeps the tokenizer as it is: --format safetensors"
_METASPACE = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": False}
_PREFIXES: dict[bool, list[tuple[Any, Any]]] = {
    True: [(SPACE_BEFORE, None), (None, _METASPACE)],
    False: [(SPACES, None)],
}
"""SentencePiece's rules in ``tokenizers``: normalizer and pre-tokenizer, by ``space_prefix``."""


def vocabulary_of(
    tokenizer: PreTrainedTokenizerBase, folder: Path, rows: int, stops: Sequence[int]
) -> Vocabulary:
    """Return a tokenizer in the form that a file stores.

    Args:
        tokenizer: the tokenizer.
        folder: where it was loaded from.
        rows: rows of the model's embedding; those without a token become unused tokens.
        stops: the tokens that end an answer.

    Raises:
        UsageError: if llama.cpp does not support such a tokenizer.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise _unknown(folder, f"it is a {type(tokenizer).__name__}")
    saved = json.loads(tokenizer.backend_tokenizer.to_str())
    if saved["model"]["type"] != "BPE":
        raise _unknown(folder, f"its model is {saved['model']['type']}")
    added = tokenizer.added_tokens_decoder
    _check_added(folder, added)
    tokens = {number: token for token, number in tokenizer.get_vocab().items()}
    if max(tokens) >= rows:
        why = f"it has tokens up to {max(tokens)}, and the model {rows} rows"
        raise refusal(f"the tokenizer in {folder} is another model's", why, "--tokenizer_name DIR")
    texts = [tokens.get(number, f"[PAD{number}]") for number in range(rows)]
    kinds = [_kind(number, tokens, added) for number in range(rows)]
    if saved["model"]["byte_fallback"]:
        own = _sentencepiece(folder, saved, texts)
        kinds = _piece_kinds(kinds, texts, tokenizer.unk_token_id)
    else:
        own = _byte_level(folder, saved)
    own |= _special_tokens(tokenizer, stops)
    return Vocabulary(tokens=texts, kinds=kinds, chat_template=own_template(tokenizer), **own)


def _special_tokens(tokenizer: PreTrainedTokenizerBase, stops: Sequence[int]) -> dict[str, Any]:
    """Return the fields for the tokens with a role, and those around every text."""
    empty = tokenizer("")["input_ids"]
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    return {
        "begin": begin,
        "end": end,
        "unknown": tokenizer.unk_token_id,
        "padding": tokenizer.pad_token_id,
        "other_ends": [each for each in stops if each != end][: len(OTHER_ENDS)],
        "add_begin": begin is not None and empty[:1] == [begin],
        "add_end": end is not None and empty[-1:] == [end],
    }


def _kind(number: int, tokens: dict[int, str], added: dict[int, AddedToken]) -> int:
    if number not in tokens:
        return UNUSED
    if number in added:
        return CONTROL if added[number].special else USER_DEFINED
    return NORMAL


def _byte_level(folder: Path, saved: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are particular to byte-level BPE."""
    found = saved["pre_tokenizer"]
    names = [name for name, rule in SPLITTING.items() if found == _as_saved("pre_tokenizer", rule)]
    if not names or saved["normalizer"] is not None:
        rule = found if not names else saved["normalizer"]
        raise _unknown(folder, f"it changes or splits texts by {json.dumps(rule)!s:.150}")
    if bool(saved["model"].get("ignore_merges")) != (names[0] in WHOLE_WORDS):
        raise _unknown(folder, f"its ignore_merges is not as llama.cpp's {names[0]} has it")
    merges = [tuple(each) for each in saved["model"]["merges"]]
    return {"model": BYTE_LEVEL, "splitting": names[0], "merges": merges}


def _sentencepiece(folder: Path, saved: dict[str, Any], texts: list[str]) -> dict[str, Any]:
    """Return the fields that are particular to SentencePiece."""
    rules = (saved["normalizer"], saved["pre_tokenizer"])
    prefixes = [
        prefix
        for prefix, known in _PREFIXES.items()
        for normalizer, split in known
        if rules == (_as_saved("normalizer", normalizer), _as_saved("pre_tokenizer", split))
    ]
    if not prefixes:
        raise _unknown(folder, f"it changes or splits texts by {json.dumps(rules)!s:.150}")
    scores = _scores(folder, saved, texts)
    return {
        "model": SENTENCEPIECE,
        "splitting": "default",
        "scores": scores,
        "space_prefix": prefixes[0],
    }


def _piece_kinds(kinds: list[int], texts: list[str], unknown: int | None) -> list[int]:
    """Return the kinds of SentencePiece's pieces; bytes and the unknown token have their own.

    transformers' Llama has no unknown token in its BPE, but knows its id. SentencePiece before
    0.2.3 cannot read a model without one.
    """
    found = list(kinds)
    for number, (text, kind) in enumerate(zip(texts, kinds, strict=True)):
        if number == unknown:
            found[number] = UNKNOWN
        elif kind == NORMAL and _is_byte(text):
            found[number] = BYTE
    return found


def _scores(folder: Path, saved: dict[str, Any], texts: list[str]) -> list[float]:
    """Return the scores in SentencePiece's own file; without one, by the order of merges."""
    if (folder / MODEL).is_file():
        import sentencepiece

        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / MODEL))
        known = {pieces.id_to_piece(each): pieces.get_score(each) for each in range(len(pieces))}
    else:
        known = {}
        for rank, pair in enumerate(saved["model"]["merges"]):
            known.setdefault("".join(pair), -float(rank))
    least = min(known.values(), default=0.0) - 1
    return [float(known.get(text, least)) for text in texts]


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _as_saved(name: str, rule: Any) -> Any:
    """Return a rule as ``tokenizers`` would write it, with this version's defaults."""
    if rule is None:
        return None
    from tokenizers import Tokenizer, models

    plain = Tokenizer(models.BPE())
    setattr(plain, name, component(name, rule))
    return json.loads(plain.to_str())[name]


def _check_added(folder: Path, added: dict[int, AddedToken]) -> None:
    """Refuse added tokens that absorb the spaces beside them, or are found as whole words only.

    Raises:
        UsageError: if there are any; a GGUF file cannot represent that.
    """
    for each in added.values():
        if each.lstrip or each.rstrip:
            raise _unknown(folder, f"its token {each.content} takes the spaces beside it")
        if each.single_word:
            raise _unknown(folder, f"its token {each.content} is not found within a word")


def own_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return a tokenizer's chat template; of several, the default one."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return template or None


def further_templates(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Return a tokenizer's chat templates beside the default one, by name."""
    found = tokenizer.chat_template
    if not isinstance(found, dict):
        return {}
    return {name: text for name, text in found.items() if name != "default"}


def _unknown(folder: Path, why: str) -> UsageError:
    return refusal(f"llama.cpp has no tokenizer like the one in {folder}", why, FIX)
