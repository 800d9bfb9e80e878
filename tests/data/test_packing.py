"""Best fit in bulk is best fit: as few rows as one by one, every document once, fast."""

import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from llama_recipes_local.data.packing import Packing, pack

LENGTHS = {
    "many short": np.random.RandomState(0).randint(1, 30, 700),
    "all sizes": np.random.RandomState(1).randint(1, 101, 700),
    "halves and thirds": np.random.RandomState(2).choice([33, 34, 49, 50, 51], 300),
    "few lengths": np.random.RandomState(3).choice([7, 100, 64], 200),
    "one document": np.array([5]),
    "full rows": np.full(10, 100),
    "one token each": np.ones(250, dtype=int),
}
SIZE = 100


def one_by_one(lengths: NDArray[np.int64], size: int) -> list[int]:
    """Place documents by best fit, naively; return the tokens of each row."""
    rows: list[int] = []
    for length in sorted(lengths.tolist(), reverse=True):
        fitting = [row for row in range(len(rows)) if rows[row] + length <= size]
        if fitting:
            rows[max(fitting, key=lambda row: rows[row])] += length
        else:
            rows.append(length)
    return rows


def fills(packing: Packing, lengths: NDArray[np.int64]) -> list[int]:
    return [int(lengths[packing.row(row)].sum()) for row in range(len(packing))]


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("size", [SIZE, 1000])
def test_rows_are_as_full_as_one_by_one(name: str, size: int) -> None:
    lengths = LENGTHS[name]
    packing = pack(lengths, size, 0)
    assert Counter(fills(packing, lengths)) == Counter(one_by_one(lengths, size))


@pytest.mark.parametrize("name", LENGTHS)
def test_every_document_is_in_one_row(name: str) -> None:
    packing = pack(LENGTHS[name], SIZE, 0)
    assert sorted(packing.documents.tolist()) == list(range(len(LENGTHS[name])))
    assert packing.starts[0] == 0 and packing.starts[-1] == len(packing.documents)
    assert all(len(packing.row(row)) for row in range(len(packing)))
    assert max(fills(packing, LENGTHS[name])) <= SIZE


def test_documents_of_a_row_are_in_the_datas_order() -> None:
    packing = pack(LENGTHS["many short"], SIZE, 0)
    assert all((np.diff(packing.row(row)) > 0).all() for row in range(len(packing)))


def test_seed_decides_between_equals_and_nothing_else() -> None:
    lengths = LENGTHS["few lengths"]
    first, again, other = (pack(lengths, SIZE, seed) for seed in (1, 1, 2))
    assert (first.documents == again.documents).all() and (first.starts == again.starts).all()
    assert first.documents.tolist() != other.documents.tolist()
    assert sorted(fills(first, lengths)) == sorted(fills(other, lengths))


def test_seed_decides_which_documents_share_a_row() -> None:
    lengths = LENGTHS["few lengths"]

    def neighbours(seed: int) -> set[tuple[int, ...]]:
        packing = pack(lengths, SIZE, seed)
        return {tuple(packing.row(row).tolist()) for row in range(len(packing))}

    assert neighbours(1) == neighbours(1) != neighbours(2)


def test_rows_do_not_come_longest_document_first() -> None:
    lengths = LENGTHS["all sizes"]
    packing = pack(lengths, SIZE, 0)
    longest = [int(lengths[packing.row(row)].max()) for row in range(len(packing))]
    assert np.corrcoef(longest, range(len(longest)))[0, 1] > -0.2


def test_documents_without_tokens_are_skipped() -> None:
    assert pack([0, 3, 0, 2], 5, 0).documents.tolist() == [1, 3]
    assert len(pack([0], 5, 0)) == len(pack([], 5, 0)) == 0


def test_a_document_longer_than_a_row_is_an_error() -> None:
    with pytest.raises(ValueError, match="6 tokens does not fit a row of 5"):
        pack([6], 5, 0)


def seconds(act: Callable[[], object]) -> float:
    """Return how many seconds of this thread's own it takes."""
    begin = time.thread_time()
    act()
    return time.thread_time() - begin


def count(lengths: np.ndarray) -> dict[int, int]:
    """Count documents in a loop that does the least with each."""
    found: dict[int, int] = {}
    for length in lengths.tolist():
        found[length] = found.get(length, 0) + 1
    return found


# it takes four times as long as that loop; one that places each document, more than thirty times
@pytest.mark.parametrize(("shortest", "longest", "size"), [(20, 1217, 4096), (1, 4096, 131072)])
def test_a_million_lengths_are_packed_without_a_loop_over_documents(
    shortest: int, longest: int, size: int
) -> None:
    lengths = np.random.RandomState(0).randint(shortest, longest + 1, 1_000_000)
    packing = pack(lengths, size, 42)
    best = min(seconds(lambda: pack(lengths, size, 42)) for _ in range(2))
    assert best < 16 * min(seconds(lambda: count(lengths)) for _ in range(2))
    assert lengths.sum() / (len(packing) * size) > 0.999


@pytest.mark.parametrize("seed", [-1, 2**40 + 5])
def test_any_whole_number_is_a_seed(seed: int) -> None:
    assert len(pack(LENGTHS["few lengths"], SIZE, seed)) > 0
