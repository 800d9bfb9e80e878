"""Finds places to cut a long text, so that the ids of its pieces are those of the whole text.

A tokenizer needs a hundred times the memory of a text, so ``token_ids`` tokenises long ones in
pieces.
"""

import re
from functools import lru_cache

from transformers import PreTrainedTokenizerFast

PIECE = 1 << 16
"""Characters of a piece, at least."""
_CUT = re.compile("[A-Za-z](?= [A-Za-z])")
# A letter and a space after it: as text, in SentencePiece's and in byte-level vocabularies.
_ACROSS = re.compile(
    "[A-Za-z][ \N{LOWER ONE EIGHTH BLOCK}\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}]"
)


def pieces(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    """Return a text in pieces, cut before single spaces between words; a short text is whole.

    No token of the vocabulary spans a letter and a following space, so no token is cut, and merges
    on one side do not depend on the other. A text that contains special tokens is not cut.
    """
    if len(text) <= 2 * PIECE or not _never_goes_across(tokenizer, len(tokenizer)):
        return [text]
    within = text.removeprefix(str(tokenizer.bos_token or ""))
    within = within.removesuffix(str(tokenizer.eos_token or ""))
    if any(token in within for token in tokenizer.get_added_vocab()):
        return [text]
    cuts = [0]
    while found := _CUT.search(text, cuts[-1] + PIECE):
        cuts.append(found.end())
    return [text[start:end] for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True)]


@lru_cache(maxsize=4)
def _never_goes_across(tokenizer: PreTrainedTokenizerFast, size: int) -> bool:
    """Return whether no token spans a cut; ``size`` is the vocabulary's, for the cache."""
    return not any(map(_ACROSS.search, tokenizer.get_vocab()))
