"""Every row once an epoch, and the same global batches on any number of ranks."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import pytest

from llama_recipes_local.data.batch_sampler import (
    MEGABATCH,
    LengthGroupedBatchSampler,
    ShardedBatchSampler,
)

Make = Callable[..., ShardedBatchSampler]
Batches = list[list[int]]

RANKS = (1, 2, 3, 4)
# 24 goes round on all of these ranks in batches of 2; the others leave short or empty batches
ROWS = (1, 7, 24, 25)


def lengths(rows: int) -> list[int]:
    return [(row * 37) % 101 + 1 for row in range(rows)]


def plain(rows: int, batch_size: int, **kwargs: Any) -> ShardedBatchSampler:
    return ShardedBatchSampler(rows, batch_size, **kwargs)


def grouped(rows: int, batch_size: int, **kwargs: Any) -> ShardedBatchSampler:
    return LengthGroupedBatchSampler(lengths(rows), batch_size, **kwargs)


def epoch_of(
    make: Make, rows: int, batch_size: int, ranks: int, epoch: int = 0, **kwargs: Any
) -> list[Batches]:
    """Return what each rank takes: a list of micro-batches a rank."""
    samplers = [
        make(rows, batch_size, rank=rank, num_replicas=ranks, **kwargs) for rank in range(ranks)
    ]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


def flat(lists: Iterable[list[Any]]) -> list[Any]:
    return list(chain.from_iterable(lists))


def global_batches(taken: list[Batches], accumulation_steps: int = 1) -> Batches:
    """Return the rows of each optimiser step over all ranks and micro-batches."""
    together = [sorted(flat(micro_batches)) for micro_batches in zip(*taken, strict=True)]
    steps = range(0, len(together), accumulation_steps)
    return [sorted(flat(together[i : i + accumulation_steps])) for i in steps]


@pytest.mark.parametrize("make", [plain, grouped])
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("rows", ROWS)
def test_every_row_once_an_epoch(make: Make, ranks: int, rows: int) -> None:
    taken = epoch_of(make, rows, 2, ranks)
    assert sorted(flat(flat(taken))) == list(range(rows))


@pytest.mark.parametrize("make", [plain, grouped])
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("rows", ROWS)
def test_all_ranks_take_as_many_batches_as_they_say(make: Make, ranks: int, rows: int) -> None:
    taken = epoch_of(make, rows, 2, ranks)
    said = {len(make(rows, 2, rank=rank, num_replicas=ranks)) for rank in range(ranks)}
    assert said == {len(batches) for batches in taken} == {-(-rows // (2 * ranks))}


@pytest.mark.parametrize("make", [plain, grouped])
@pytest.mark.parametrize("ranks", RANKS)
def test_no_batch_is_larger_than_asked_for(make: Make, ranks: int) -> None:
    taken = epoch_of(make, 25, 2, ranks)
    assert max(len(batch) for batches in taken for batch in batches) == 2


@pytest.mark.parametrize("make", [plain, grouped])
@pytest.mark.parametrize("rows", ROWS)
def test_ranks_split_the_global_batch_of_one(make: Make, rows: int) -> None:
    alone = global_batches(epoch_of(make, rows, 4, ranks=1))
    assert global_batches(epoch_of(make, rows, 2, ranks=2)) == alone
    assert global_batches(epoch_of(make, rows, 1, ranks=4)) == alone


@pytest.mark.parametrize("rows", ROWS)
def test_accumulation_splits_the_global_batch_of_one(rows: int) -> None:
    whole = global_batches(epoch_of(plain, rows, 8, ranks=1))
    for ranks, batch_size in ((1, 4), (2, 2), (4, 1)):
        taken = epoch_of(plain, rows, batch_size, ranks)
        assert global_batches(taken, accumulation_steps=2) == whole


@pytest.mark.parametrize("make", [plain, grouped])
def test_order_is_new_each_epoch(make: Make) -> None:
    epochs = [epoch_of(make, 24, 2, ranks=2, epoch=epoch) for epoch in range(3)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


@pytest.mark.parametrize("make", [plain, grouped])
def test_order_follows_from_the_seed(make: Make) -> None:
    assert epoch_of(make, 24, 2, 2, seed=1) == epoch_of(make, 24, 2, 2, seed=1)
    assert epoch_of(make, 24, 2, 2, seed=1) != epoch_of(make, 24, 2, 2, seed=2)


def test_without_shuffling_rows_keep_their_order() -> None:
    taken = epoch_of(plain, 7, 2, ranks=2, shuffle=False)
    assert taken == [[[0, 1], [4, 5]], [[2, 3], [6]]]


def test_shuffling_mixes_all_rows() -> None:
    # had it only shuffled batches, some two neighbours would still stand together
    (taken,) = epoch_of(plain, 1000, 2, ranks=1)
    neighbours = sum(abs(first - second) == 1 for first, second in taken)
    assert neighbours < 10


def test_grouped_batches_have_similar_lengths() -> None:
    (taken,) = epoch_of(grouped, 96, 4, ranks=1)
    length = lengths(96)
    groups = sorted(sorted(length[row] for row in batch) for batch in taken)
    assert flat(groups) == sorted(length)


def test_similar_lengths_are_grouped_among_near_rows() -> None:
    (taken,) = epoch_of(grouped, 1000, 2, ranks=1, shuffle=False)
    assert max(max(batch) - min(batch) for batch in taken) < 2 * MEGABATCH


def test_rows_that_are_left_over_come_last() -> None:
    (taken,) = epoch_of(grouped, 98, 4, ranks=1)
    assert [len(batch) for batch in taken] == [4] * 24 + [2]
    length = lengths(98)
    spreads = [max(length[r] for r in batch) - min(length[r] for r in batch) for batch in taken]
    assert max(spreads[:-1]) < 10


def test_grouped_batches_come_in_random_order() -> None:
    (taken,) = epoch_of(grouped, 96, 4, ranks=1)
    length = lengths(96)
    shortest = [min(length[row] for row in batch) for batch in taken]
    assert shortest != sorted(shortest)


def test_all_ranks_get_similar_lengths_at_once() -> None:
    taken = epoch_of(grouped, 96, 2, ranks=2)
    length = lengths(96)
    groups = sorted(sorted(length[row] for row in step) for step in global_batches(taken))
    assert flat(groups) == sorted(length)


def test_similar_lengths_have_other_neighbours_in_each_epoch() -> None:
    def pairs(epoch: int) -> set[tuple[int, ...]]:
        (taken,) = epoch_of(grouped, 1000, 2, ranks=1, epoch=epoch)
        return {tuple(sorted(batch)) for batch in taken}

    assert len(pairs(0) & pairs(1)) < 100


def test_rows_that_are_left_over_are_not_always_the_longest() -> None:
    length = lengths(1001)
    left = [epoch_of(grouped, 1001, 4, ranks=1, epoch=epoch)[0][-1] for epoch in range(8)]
    assert all(len(batch) == 1 for batch in left)
    assert len({length[row] for (row,) in left}) > 4


def test_lengths_do_not_depend_on_when_they_come() -> None:
    length = lengths(4000)
    (taken,) = epoch_of(grouped, 4000, 4, ranks=1)
    means = [
        sum(length[row] for row in flat(taken[i : i + 100])) / 400 for i in range(0, 1000, 100)
    ]
    overall = sum(length) / 4000
    assert all(abs(mean - overall) < 12 for mean in means)  # in order of length it would be 45


def test_validation_does_not_begin_with_the_shortest() -> None:
    length = lengths(400)
    (taken,) = epoch_of(grouped, 400, 4, ranks=1, shuffle=False)
    assert epoch_of(grouped, 400, 4, ranks=1, shuffle=False, epoch=5) == [taken]
    first = [length[row] for row in flat(taken[:25])]
    assert sum(first) / 100 == pytest.approx(sum(length) / 400, rel=0.2)


def test_indices_are_plain_numbers() -> None:
    assert all(type(row) is int for row in next(iter(plain(1000, 4))))


@pytest.mark.parametrize("make", [plain, grouped])
def test_smaller_micro_batches_have_the_same_rows_in_each_step(make: Make) -> None:
    whole = [make(37, 4, rank=rank, num_replicas=2) for rank in range(2)]
    split = [make(37, 4, rank=rank, num_replicas=2) for rank in range(2)]
    for sampler in split:
        sampler.split(2)
    for epoch in range(2):
        for sampler in (*whole, *split):
            sampler.set_epoch(epoch)
        assert len(split[0]) == split[0].per_epoch == 10
        large = [list(chain(*ranks)) for ranks in zip(*whole, strict=True)]
        small = [list(chain(*ranks)) for ranks in zip(*split, strict=True)]
        pairs = [first + second for first, second in zip(small[::2], small[1::2], strict=True)]
        assert pairs == large
