"""ROUGE of summaries by Google's ``rouge-score``: F1 with stemming, against the best reference."""

from collections.abc import Sequence

import numpy as np

from llama_recipes_local.answers.measures import Measure, ratio

KINDS = ("rouge1", "rouge2", "rougeL")


def rouge(
    keys: Sequence[str], hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> list[Measure]:
    """Measure summaries: ROUGE-1, ROUGE-2 and ROUGE-L, each the mean over all summaries.

    Args:
        keys: an identifier of each text.
        hypotheses: the summaries.
        references: the summaries by people, one or more of each text.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(KINDS, use_stemmer=True)
    scores = [
        scorer.score_multi(list(theirs), ours)
        for ours, theirs in zip(hypotheses, references, strict=True)
    ]
    return [
        Measure(
            kind,
            tuple(keys),
            np.array([[score[kind].fmeasure, 1.0] for score in scores]),
            ratio,
        )
        for kind in KINDS
    ]
