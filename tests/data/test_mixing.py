"""An epoch of a mixture: shares of label tokens, every row at least once, the same by one seed."""

import pickle
from collections import Counter

import numpy as np
import pytest
from rank_batches import documents

from llama_recipes_local.data.batch_sampler import GroupedBatchSampler, ShardedBatchSampler
from llama_recipes_local.data.concatenator import ConcatDataset
from llama_recipes_local.data.mixed_rows import interleaved
from llama_recipes_local.data.mixing import mixed, share_table, shares
from llama_recipes_local.data.token_rows import TokenRows

WEIGHTS = {"a": 7.0, "b": 3.0}


def parts(a: int = 300, b: int = 40) -> dict[str, TokenRows]:
    """Rows of two sources, no token in both."""
    every = documents(a + b)
    return {"a": TokenRows.from_samples(every[:a]), "b": TokenRows.from_samples(every[a:])}


def label_tokens(rows: TokenRows, place: int) -> int:
    return int(rows.label_counts[rows.sources == place].sum())  # type: ignore[attr-defined]


@pytest.mark.parametrize("weights", [WEIGHTS, {"a": 0.01, "b": 0.99}, {"a": 1, "b": 1}])
def test_label_tokens_have_the_shares_that_were_asked_for(weights: dict[str, float]) -> None:
    rows = mixed(parts(), weights, seed=1)
    counts = [label_tokens(rows, place) for place in (0, 1)]
    assert counts[0] / sum(counts) == pytest.approx(weights["a"] / sum(weights.values()), rel=0.001)
    found = shares(rows, weights, {})
    assert [share.label_tokens for share in found.values()] == counts


def test_every_row_comes_and_the_largest_source_for_its_weight_once() -> None:
    sources = parts()
    rows = mixed(sources, WEIGHTS, seed=1)
    times = Counter(tuple(rows.arrays(row)[0].tolist()) for row in range(len(rows)))
    first = [times[tuple(row["input_ids"])] for row in sources["a"]]
    second = [times[tuple(row["input_ids"])] for row in sources["b"]]
    assert set(first) == {1}
    assert min(second) >= 1
    assert max(second) - min(second) == 1  # repeated whole, then in part
    assert len(times) == 340
    assert shares(rows, WEIGHTS, {})["b"].times == pytest.approx(np.mean(second), rel=0.1)


def test_the_seed_decides_which_rows_come_once_more() -> None:
    def lengths(seed: int) -> list[int]:
        return mixed(parts(), WEIGHTS, seed).lengths.tolist()

    assert lengths(1) == lengths(1)
    assert lengths(1) != lengths(2)


@pytest.mark.parametrize("seed", range(20))
def test_no_row_comes_more_than_once_more_than_another(seed: int) -> None:
    rows = mixed(parts(60, 12), {"a": 5.0, "b": 3.0}, seed)
    places = np.bincount(rows._order)[60:]  # of the second source, which is repeated
    assert places.max() - places.min() == 1


def test_columns_follow_the_order_of_the_rows() -> None:
    rows = mixed(parts(), WEIGHTS, seed=1)
    same = TokenRows.from_samples(list(rows))
    for name in ("lengths", "digests", "label_counts", "last_labels"):
        assert getattr(rows, name).tolist() == getattr(same, name).tolist(), name
    for ours, theirs in zip(rows.beginnings, same.beginnings, strict=True):
        assert ours.tolist() == theirs.tolist()
    assert rows.tokens(10**6) == same.tokens(10**6)
    assert rows.repeated == 0
    sent = pickle.loads(pickle.dumps(rows))
    assert list(sent) == list(rows)
    assert sent.sources.tolist() == rows.sources.tolist()


def test_validation_rows_come_once_and_spread() -> None:
    rows = interleaved(parts(30, 10))
    joined = TokenRows.joined(parts(30, 10).values())
    assert sorted(rows.label_counts) == sorted(joined.label_counts)
    assert [int(rows.sources[start : start + 4].sum()) for start in range(0, 40, 4)] == [1] * 10


def test_packed_validation_rows_are_of_one_source() -> None:
    rows = interleaved(parts(30, 10))
    packed = ConcatDataset(rows, chunk_size=128)
    assert packed.groups is not None
    seen = Counter[int]()
    for row in range(len(packed)):
        members = packed.documents_of(row)
        seen.update(members.tolist())
        assert set(rows.sources[members]) == {packed.groups[row]}
    assert seen == Counter(range(40))


@pytest.mark.parametrize("ranks", [1, 3])
def test_micro_batches_are_of_one_group_on_all_ranks(ranks: int) -> None:
    groups = np.array([0, 0, 1, 0, 1, 0, 0, 1, 0, 0])
    rows = [np.flatnonzero(groups == group) for group in (0, 1)]

    def made(rank: int) -> GroupedBatchSampler:
        each = [ShardedBatchSampler(len(r), 2, rank, ranks, shuffle=False) for r in rows]
        return GroupedBatchSampler(("a", "b"), list(zip(rows, each, strict=True)))

    samplers = [made(rank) for rank in range(ranks)]
    taken = [list(sampler) for sampler in samplers]
    assert len({tuple(sampler.order) for sampler in samplers}) == 1
    assert set(samplers[0].order[:2]) == {0, 1}
    assert all(len(batches) == len(samplers[0]) for batches in taken)
    assert sorted(row for batches in taken for batch in batches for row in batch) == list(range(10))
    for batches in taken:
        for group, batch in zip(samplers[0].order, batches, strict=True):
            assert all(groups[row] == group for row in batch)


def test_the_table_has_a_line_a_source() -> None:
    rows = mixed(parts(), WEIGHTS, seed=1)
    first, *lines = share_table(shares(rows, WEIGHTS, {"a": 5})).splitlines()
    assert first.split()[-3:] == ["rows", "times", "validation"]
    assert [line.split()[:3] for line in lines] == [
        ["a", "70.00%", "70.00%"],
        ["b", "30.00%", "30.00%"],
    ]
    assert [line.split()[-1] for line in lines] == ["5", "0"]
