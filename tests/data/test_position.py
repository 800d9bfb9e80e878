"""A position is saved on some ranks and resumed on others: every row of the epoch once."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rank_batches import flat, same, take
from torch.utils.data import DataLoader

from llama_recipes_local.data import position
from llama_recipes_local.data.batch_sampler import LengthGroupedBatchSampler, ShardedBatchSampler

ROWS = 101
BATCH = 2
LENGTHS = np.random.RandomState(0).randint(1, 500, ROWS)

Make = Callable[..., ShardedBatchSampler]


def plain(rank: int, ranks: int, **kwargs: Any) -> ShardedBatchSampler:
    return ShardedBatchSampler(ROWS, BATCH, rank=rank, num_replicas=ranks, **kwargs)


def grouped(rank: int, ranks: int, **kwargs: Any) -> ShardedBatchSampler:
    return LengthGroupedBatchSampler(LENGTHS, BATCH, rank=rank, num_replicas=ranks, **kwargs)


both = pytest.mark.parametrize("make", [plain, grouped])


def saved(make: Make, ranks: int, epoch: int, micro_batches: int, **kwargs: Any) -> dict[str, Any]:
    """Return what the ranks save, which has been a file."""
    states = []
    for rank in range(ranks):
        sampler = make(rank, ranks, **kwargs)
        sampler.set_epoch(epoch)
        states.append(sampler.state_dict(micro_batches))
    return json.loads(json.dumps(same(states)))


def at(make: Make, epoch: int, state: dict[str, Any] | None = None) -> Make:
    def made(rank: int, ranks: int) -> ShardedBatchSampler:
        sampler = make(rank, ranks)
        if state is not None:
            sampler.load_state_dict(state)
        sampler.set_epoch(epoch)
        return sampler

    return made


@both
@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (1, 4), (2, 2)])
@pytest.mark.parametrize("micro_batches", [0, 1, 7, 16])
def test_rest_of_the_epoch_is_sharded_over_other_ranks(
    make: Make, before: int, after: int, micro_batches: int
) -> None:
    state = saved(make, before, 3, micro_batches)
    seen = flat(flat(take(at(make, 3), before, micro_batches)))
    rest = flat(flat(take(at(make, 3, state), after)))
    assert len(seen) == micro_batches * BATCH * before
    assert sorted(seen + rest) == list(range(ROWS))


@both
def test_rest_of_the_epoch_is_that_of_an_uninterrupted_run(make: Make) -> None:
    state = saved(make, 2, 3, 7)
    whole = take(at(make, 3), 2)
    assert take(at(make, 3, state), 2) == [batches[7:] for batches in whole]


@both
def test_later_epochs_are_the_new_ranks_own(make: Make) -> None:
    state = saved(make, 2, 3, 7)
    assert take(at(make, 4, state), 3) == take(at(make, 4), 3)


@both
def test_position_is_saved_again_in_a_resumed_epoch(make: Make) -> None:
    first = saved(make, 2, 3, 7)  # 28 rows
    states = [at(make, 3, first)(rank, 3).state_dict(5) for rank in range(3)]  # 30 more
    second = same(states)
    assert (second["rows"], second["group"]) == (58, first["group"])
    seen = flat(flat(take(at(make, 3), 2, 7))) + flat(flat(take(at(make, 3, first), 3, 5)))
    rest = flat(flat(take(at(make, 3, second), 1)))
    assert sorted(seen + rest) == list(range(ROWS))


@both
def test_length_is_what_is_left_and_then_all(make: Make) -> None:
    sampler = make(0, 3)
    sampler.load_state_dict(saved(make, 2, 3, 7))
    assert sampler.epoch == 3
    assert len(sampler) == len(list(sampler)) == -(-(ROWS - 28) // (3 * BATCH))
    sampler.set_epoch(4)
    assert len(sampler) == len(list(sampler)) == -(-ROWS // (3 * BATCH))


@both
def test_end_of_an_epoch_is_the_beginning_of_the_next(make: Make) -> None:
    state = saved(make, 2, 3, len(make(0, 2)))
    assert (state["epoch"], state["rows"]) == (4, 0)
    assert take(at(make, 4, state), 2) == take(at(make, 4), 2)


def test_an_epoch_that_divides_evenly_ends_at_its_last_row() -> None:
    sampler = ShardedBatchSampler(12, BATCH, num_replicas=3)
    assert (sampler.state_dict(1)["epoch"], sampler.state_dict(1)["rows"]) == (0, 6)
    assert (sampler.state_dict(2)["epoch"], sampler.state_dict(2)["rows"]) == (1, 0)


@both
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_rows": 100}, "num_rows 100, this run 101.*same files and --context_length"),
        ({"seed": 1}, "seed 1, this run 0.*--seed"),
        ({"order": "alphabet"}, "alphabet.*--batching_strategy"),
        ({"colour": "red"}, "not a position.*colour"),
    ],
)
def test_a_position_in_other_rows_is_refused(
    make: Make, change: dict[str, Any], message: str
) -> None:
    state = saved(make, 2, 3, 7) | change
    with pytest.raises(ValueError, match=message):
        make(0, 2).load_state_dict(state)


def test_an_incomplete_position_is_refused() -> None:
    with pytest.raises(ValueError, match="not a position"):
        plain(0, 1).load_state_dict({"epoch": 1})


def test_the_sampler_of_a_loader_is_found() -> None:
    sampler = plain(0, 1)
    rows = list(range(ROWS))
    assert position.of(DataLoader(rows, batch_sampler=sampler)) is sampler
    assert position.of(DataLoader(rows, batch_size=2)) is None
    assert position.of(SimpleNamespace()) is None
