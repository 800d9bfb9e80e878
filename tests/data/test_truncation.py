"""What is trained of a document that is longer than a row."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest

from llama_recipes_local.data.token_rows import IGNORE_INDEX as X
from llama_recipes_local.data.truncation import truncate


def test_a_document_that_fits_stays_as_it_is() -> None:
    ids, labels = [1, 2, 3], [X, X, X]
    ((kept_ids, kept_labels),) = truncate(ids, labels, 3)
    assert kept_ids is ids and kept_labels is labels


def test_a_prompt_loses_its_middle_first() -> None:
    ids = [1, 2, 3, 4, 5, 6, 7, 8]
    labels = [X, X, X, X, X, X, 7, 8]
    assert truncate(ids, labels, 6) == [([1, 2, 5, 6, 7, 8], [X, X, X, X, 7, 8])]
    assert truncate(ids, labels, 5) == [([1, 2, 6, 7, 8], [X, X, X, 7, 8])]
    assert truncate(ids, labels, 3) == [([1, 7, 8], [X, 7, 8])]


def test_then_a_response_loses_its_end() -> None:
    ids, labels = [1, 2, 3, 4, 5, 6], [X, X, X, 4, 5, 6]
    assert truncate(ids, labels, 3) == [([1, 4, 5], [X, 4, 5])]
    assert truncate(ids, labels, 2) == [([1, 4], [X, 4])]


def test_a_conversation_keeps_its_turns_in_order() -> None:
    ids = list(range(1, 13))
    labels = [X, X, X, X, 5, 6, X, X, 9, 10, X, X]
    # the last turn, which nothing answers, goes first; then the middle of the first prompt
    assert truncate(ids, labels, 10) == [(ids[:10], labels[:10])]
    assert truncate(ids, labels, 8) == [([1, 4, 5, 6, 7, 8, 9, 10], [X, X, 5, 6, X, X, 9, 10])]
    assert truncate(ids, labels, 5) == [([1, 5, 6, 7, 8], [X, 5, 6, X, X])]


@pytest.mark.parametrize("length", range(6, 30))
@pytest.mark.parametrize("limit", [2, 3, 5])
@pytest.mark.parametrize("first_is_label", [True, False])
def test_plain_text_is_split_so_that_every_label_is_predicted_once(
    length: int, limit: int, first_is_label: bool
) -> None:
    ids = list(range(length))
    labels = ids if first_is_label else [X, *ids[1:]]
    pieces = truncate(ids, labels, limit)
    assert all(2 <= len(part) <= limit and len(part) == len(own) for part, own in pieces)
    predicted = chain.from_iterable(own[1:] for _, own in pieces)
    assert Counter(predicted) == Counter(ids[1:])


def test_parts_without_a_label_are_skipped() -> None:
    ids = list(range(10))
    parts = truncate(ids, [0, 1, 2, X, X, X, X, X, 8, 9], 3)
    assert [(list(tokens), list(labels)) for tokens, labels in parts] == [
        ([0, 1, 2], [0, 1, 2]),
        ([6, 7, 8], [X, X, 8]),
        ([8, 9], [8, 9]),
    ]
    assert truncate(ids, [X] * 10, 3) == []
    assert truncate(ids, [0] + [X] * 9, 3) == []


def test_arrays_give_lists() -> None:
    ids = np.arange(6, dtype=np.int32)
    assert truncate(ids, np.array([X, X, X, 3, 4, 5], dtype=np.int32), 4) == [
        ([0, 3, 4, 5], [X, 3, 4, 5])
    ]


def test_a_row_of_one_token_is_an_error() -> None:
    with pytest.raises(ValueError, match="predicts nothing"):
        truncate([1], [1], 1)
