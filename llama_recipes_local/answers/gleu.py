"""GLEU for grammatical error correction, against all references.

This is the metric that the JFLEG corpus is scored with (Napoles et al., ACL 2015, in the version of
2016, https://arxiv.org/abs/1605.02592): BLEU's precision, minus the n-grams that a correction keeps
from the source although the reference changed them. Where a sentence has several references, one is
drawn for it 500 times and the corpus's scores are averaged. The draws equal those of the authors'
script, so the scores do too.

``nltk.translate.gleu_score`` is another metric with the same name: Google's for translation, which
does not use the source.
"""

import random
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from llama_recipes_local.answers.measures import Array, Measure

if TYPE_CHECKING:
    from nltk.tokenize import NLTKWordTokenizer

ORDER = 4
ITERATIONS = 500
SEED_STEP = 101  # of the authors' script: iteration i draws with the seed 101 i
# hypothesis length, reference length, then matches and n-grams for each order
PARTS = 2 + 2 * ORDER

Tokens = Sequence[str]


def gleu(
    keys: Sequence[str],
    sources: Sequence[Tokens],
    hypotheses: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
) -> Measure:
    """Measure corrections.

    Args:
        keys: an identifier of each sentence.
        sources: the sentences, in tokens.
        hypotheses: their corrections.
        references: the corrections by people, one or more of each sentence.
    """
    several = any(len(each) > 1 for each in references)
    draws = _draw([len(each) for each in references], ITERATIONS if several else 1)
    parts = np.empty((len(sources), len(draws), PARTS), dtype=np.float64)
    for place, texts in enumerate(zip(sources, hypotheses, references, strict=True)):
        source, hypothesis, corrected = texts
        by_reference = np.array([statistics(source, hypothesis, each) for each in corrected])
        parts[place] = by_reference[draws[:, place]]
    return Measure("gleu", tuple(keys), parts.reshape(len(sources), -1), _score)


def statistics(source: Tokens, hypothesis: Tokens, reference: Tokens) -> list[int]:
    """Return a sentence's contribution to the corpus's statistics, ``PARTS`` numbers."""
    numbers = [len(hypothesis), len(reference)]
    for size in range(1, ORDER + 1):
        ours, theirs = _ngrams(hypothesis, size), _ngrams(reference, size)
        changed = Counter(
            {ngram: count for ngram, count in _ngrams(source, size).items() if ngram not in theirs}
        )
        matches = (ours & theirs).total() - (ours & changed).total()
        numbers += [max(matches, 0), max(len(hypothesis) + 1 - size, 0)]
    return numbers


def words(text: str) -> list[str]:
    """Return a text's tokens, with punctuation separate, as JFLEG's references are written."""
    return _tokenizer().tokenize(text)


@lru_cache(maxsize=1)
def _tokenizer() -> "NLTKWordTokenizer":
    from nltk.tokenize import NLTKWordTokenizer  # rules only, nothing is downloaded

    return NLTKWordTokenizer()


def _ngrams(tokens: Tokens, size: int) -> Counter[tuple[str, ...]]:
    starts = range(len(tokens) + 1 - size)
    return Counter(tuple(tokens[start : start + size]) for start in starts)


def _draw(numbers: Sequence[int], iterations: int) -> Array:
    """Return which reference each sentence is compared with, (iterations, sentences)."""
    draws = []
    for iteration in range(iterations):
        draw = random.Random(iteration * SEED_STEP)
        draws.append([draw.randint(0, number - 1) for number in numbers])
    return np.array(draws)


def _score(sums: Array) -> Array:
    """Return the mean of the iterations' scores, (..., iterations x parts) to (...)."""
    split = sums.reshape(*sums.shape[:-1], -1, PARTS)
    length, reference_length = split[..., 0], split[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.log(split[..., 2::2] / split[..., 3::2]).mean(-1)
        brevity = np.minimum(0, 1 - reference_length / length)
        scores = np.exp(brevity + precisions)
    return np.where((split == 0).any(-1), 0, scores).mean(-1)
