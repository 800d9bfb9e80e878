"""GLEU is the one of JFLEG's authors, and a resample of it is aggregated anew."""

import csv
import math
from typing import Any

import numpy as np
import pytest

from llama_recipes_local._upstream import VENDORED_DIR
from llama_recipes_local.answers.gleu import gleu, statistics, words

GRAMMAR = VENDORED_DIR / "datasets" / "grammar_dataset"
# What the authors' script (https://github.com/keisks/jfleg, eval/gleu.py, run under Python 3)
# prints for these corrections of the 747 sentences of the validation data, to all its digits:
# against the four references, and against the third alone.
AUTHORS = {
    "the source": (0.4027154732, 0.3951047992),
    "the first reference": (0.7120281811, 0.6157457332),
    "another reference each": (0.7184615033, 0.7173927755),
    "the source without its last word": (0.3573515135, 0.3512570645),
}


@pytest.fixture(scope="module")
def corpus() -> dict[str, list[str]]:
    """Upstream's validation sentences with their references, in order."""
    references: dict[str, list[str]] = {}
    with (GRAMMAR / "grammar_validation.csv").open(encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            references.setdefault(row["input"], []).append(row["target"])
    assert len(references) == 747
    return references


def corrected(corpus: dict[str, list[str]], how: str) -> list[str]:
    if how == "the first reference":
        return [each[0] for each in corpus.values()]
    if how == "another reference each":
        return [each[place % 4] for place, each in enumerate(corpus.values())]
    if how == "the source without its last word":
        return [" ".join(source.split(" ")[:-1]) for source in corpus]
    return list(corpus)


def measured(corpus: dict[str, list[str]], hypotheses: list[str], which: slice) -> Any:
    references = [[words(text) for text in each[which]] for each in corpus.values()]
    return gleu(list(corpus), [*map(words, corpus)], [*map(words, hypotheses)], references)


@pytest.mark.slow
@pytest.mark.parametrize("how", AUTHORS)
def test_it_is_what_the_authors_script_prints(how: str, corpus: dict[str, list[str]]) -> None:
    hypotheses = corrected(corpus, how)
    for which, expected in zip((slice(None), slice(2, 3)), AUTHORS[how], strict=True):
        # sums of up to 500 floats in another order
        value = measured(corpus, hypotheses, which).of_all()
        assert value == pytest.approx(expected, abs=1e-9)


def test_the_statistics_of_a_sentence_by_hand() -> None:
    source, hypothesis, reference = list("abbc"), list("abbd"), list("axbd")
    # 1: a, b and d match (b once, as in the reference), and c is not kept; of the source's n-grams
    # that the reference has not, "a b", "b b" and "a b b" were kept, and count against it
    # 2: "b d" matches, less "a b" and "b b": below 0, so 0; 3: none match, less "a b b"; 4: none
    assert statistics(source, hypothesis, reference) == [4, 4, 3, 4, 0, 3, 0, 2, 0, 1]
    assert statistics(source, reference, reference) == [4, 4, 4, 4, 3, 3, 2, 2, 1, 1]


def test_a_corpus_of_two_sentences_by_hand() -> None:
    sources = [list("abcde"), list("fghi")]
    theirs = [[list("abcdx")], [list("fghij")]]
    measure = gleu(["1", "2"], sources, [theirs[0][0], sources[1]], theirs)
    # matches 5+4 of 9, 4+3 of 7, 3+2 of 5, 2+1 of 3; 9 words where there should be 10
    assert measure.of_all() == pytest.approx(math.exp(1 - 10 / 9))
    kept = gleu(["1", "2"], sources, sources, theirs)
    # of the first sentence e, "d e", "c d e" and "b c d e" are not to be kept
    precisions = (3 + 4) / 9 * (2 + 3) / 7 * (1 + 2) / 5 * (0 + 1) / 3
    assert kept.of_all() == pytest.approx(math.exp(1 - 10 / 9) * precisions**0.25)


@pytest.mark.slow
def test_a_resample_is_a_corpus_of_its_own(corpus: dict[str, list[str]]) -> None:
    measure = measured(corpus, corrected(corpus, "the source"), slice(None))
    draw = np.random.default_rng(0).integers(0, 747, size=(2, 747))
    for indices, value in zip(draw, measure.of(draw), strict=True):
        assert float(value) == pytest.approx(float(measure.value(measure.parts[indices].sum(0))))
    one = measure.of(np.arange(747)[None])
    assert float(one[0]) == pytest.approx(measure.of_all())
