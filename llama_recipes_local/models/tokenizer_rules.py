"""Restores a tokenizer's own rules where transformers replaces them by those of its class.

transformers 5 makes a Llama tokenizer from its vocabulary alone. With such a tokenizer a byte-level
one of that class (DeepSeek's) encodes and decodes differently, one without a space before the first
word (Yi's) gets one, and text after a special token, or text that begins with a space, has other
tokens than in SentencePiece.
"""

import json
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import decoders, pre_tokenizers
from transformers import LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

MARK = "\N{LOWER ONE EIGHTH BLOCK}"
SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
# SentencePiece's: a space before every text and every part of it between special tokens
SPACE_BEFORE = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK}, SPACES]}
# words, runs of spaces, letters that are often normalised, line ends, and rare characters
_PROBES = (
    "Below is an instruction. And then?",
    "if x:  y",
    "\N{LATIN SMALL LIGATURE FI}\N{FULLWIDTH LATIN CAPITAL LETTER A} Hello",
    "a\n\tb",
    "\N{EXTRATERRESTRIAL ALIEN}\N{ZERO WIDTH JOINER} 12",
)
FILE = "tokenizer.json"
MODEL = "tokenizer.model"


def component(name: str, rule: Any) -> Any:
    """Return a "normalizer" or "pre_tokenizer" of its JSON; None for none."""
    model = {"type": "BPE", "vocab": {}, "merges": []}
    content = {"version": "1.0", "added_tokens": [], "model": model, name: rule}
    return getattr(tokenizers.Tokenizer.from_str(json.dumps(content)), name)


def has_pieces_only(tokenizer: PreTrainedTokenizerBase, folder: Path) -> bool:
    """Return whether a tokenizer was made from a ``tokenizer.model`` alone, without a class.

    Meta's folders are like this. transformers 5 then adds neither a begin token nor a space before
    the text.
    """
    pieces = (folder / MODEL).is_file() and not (folder / FILE).is_file()
    return pieces and type(tokenizer) is PreTrainedTokenizerFast


def restore_rules(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Give a tokenizer that marks spaces the rules in its folder.

    Args:
        tokenizer: as transformers loaded it; it is changed.
        folder: where it was loaded from.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return
    backend = tokenizer.backend_tokenizer
    if not isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):
        return
    in_class = not _names_prefix(tokenizer)
    if in_class and (folder / FILE).is_file():
        saved = tokenizers.Tokenizer.from_file(str(folder / FILE))
        # the class's own is SentencePiece's BPE, which writes unknown characters as bytes
        if not getattr(saved.model, "byte_fallback", False):
            backend.model = saved.model
        backend.normalizer, backend.pre_tokenizer = saved.normalizer, saved.pre_tokenizer
        backend.decoder = saved.decoder
    elif (folder / MODEL).is_file() and not (folder / FILE).is_file():
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / MODEL))
        _merge_by_score(backend, pieces)
        if in_class and not pieces.normalize("a").startswith(MARK):
            backend.normalizer = component("normalizer", SPACES)
            backend.pre_tokenizer = component("pre_tokenizer", None)
            backend.decoder = decoders.Sequence(
                [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
            )
    rule = backend.pre_tokenizer
    if isinstance(rule, pre_tokenizers.Metaspace) and rule.prepend_scheme == "always":
        backend.normalizer = component("normalizer", SPACE_BEFORE)
        backend.pre_tokenizer = component("pre_tokenizer", None)


def _names_prefix(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether ``tokenizer_config.json`` says if a space is put before a text."""
    return tokenizer.init_kwargs.get("add_prefix_space") is not None


def unlike_its_model(tokenizer: PreTrainedTokenizerBase, folder: Path) -> str:
    """Return what a ``tokenizer.model`` does to text and transformers does not; "" if nothing.

    transformers 5 treats each one as Llama's: pieces merged by score, unknown characters as bytes,
    and no normalisation. With another kind, text would be lost or split differently, silently.

    Args:
        tokenizer: as it is loaded, with its rules restored.
        folder: where it was loaded from.
    """
    if (folder / FILE).is_file() or not (folder / MODEL).is_file():
        return ""
    if not isinstance(tokenizer, LlamaTokenizer) or _names_prefix(tokenizer):
        return ""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / MODEL))
    backend = tokenizer.backend_tokenizer
    for text in _PROBES:
        found = backend.encode(text, add_special_tokens=False)
        if found.ids != pieces.encode(text):
            read = pieces.encode(text, out_type=str)
            return f"of {text!r} it makes {read}, and transformers {found.tokens}"
    return ""


def _merge_by_score(
    backend: tokenizers.Tokenizer, pieces: sentencepiece.SentencePieceProcessor
) -> None:
    """Merge pieces in the order of their scores, as SentencePiece does.

    transformers 5 uses the order of ids. It differs where a low score puts a piece last, as with
    Llama 2's runs of spaces.
    """
    vocabulary = {pieces.id_to_piece(place): place for place in range(len(pieces))}
    scores = {piece: pieces.get_score(place) for piece, place in vocabulary.items()}
    ordinary = [
        piece
        for piece, place in vocabulary.items()
        if not (pieces.is_control(place) or pieces.is_unknown(place) or pieces.is_byte(place))
    ]
    by_score = sorted(ordinary, key=lambda piece: -scores[piece])
    model = json.loads(backend.model.__getstate__())
    if by_score == ordinary or not set(model["vocab"]) >= set(vocabulary):
        return
    known = set(ordinary)
    model["merges"] = [
        [piece[:cut], piece[cut:]]
        for piece in by_score
        for cut in range(1, len(piece))
        if piece[:cut] in known and piece[cut:] in known
    ]
    content = {"version": "1.0", "added_tokens": [], "model": model}
    backend.model = tokenizers.Tokenizer.from_str(json.dumps(content)).model
