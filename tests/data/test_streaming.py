"""A stream: its length unknown, each sample once a pass, on any number of ranks, resumable."""

import json
import pickle
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from rank_batches import Make, documents, flat, labels_of, same, take
from torch.utils.data import DataLoader, IterableDataset

from llama_recipes_local.configs import train_config
from llama_recipes_local.data import position, streaming
from llama_recipes_local.data.collation import Blank, BlankCollator, PackedCollator
from llama_recipes_local.data.concatenator import ConcatDataset
from llama_recipes_local.data.streaming import PackedStream, SampleStream, as_stream, is_stream
from llama_recipes_local.data.token_rows import IGNORE_INDEX
from llama_recipes_local.data.truncation import truncate
from llama_recipes_local.training.data_iterator import DataIterator
from llama_recipes_local.training.train_state import TrainState

CHUNK = 64
BATCH = 2
SAMPLES = documents(500)


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 500 samples fill the buffer and several windows."""
    monkeypatch.setattr(streaming, "BUFFER", 100)
    monkeypatch.setattr(streaming, "WINDOW", 64)


def opened(number: int) -> Iterator[dict[str, list[int]]]:
    return iter(SAMPLES)


def padded(micro_batches: int | None = None, passes: int | None = 1, **place: Any) -> SampleStream:
    stream = SampleStream(opened, micro_batches, passes)
    stream.shard(BATCH, **place)
    return stream


def packed(micro_batches: int | None = None, passes: int | None = 1, **place: Any) -> PackedStream:
    stream = PackedStream(SampleStream(opened, micro_batches, passes), CHUNK)
    stream.shard(BATCH, **place)
    return stream


both = pytest.mark.parametrize("make", [padded, packed])


def on_ranks(make: Any, state: dict[str, Any] | None = None, **kwargs: Any) -> Make:
    def made(rank: int, ranks: int) -> SampleStream:
        stream = make(rank=rank, num_replicas=ranks, **kwargs)
        if state is not None:
            stream.load_state_dict(state)
        return stream

    return made


def labels(taken: list[list[Any]]) -> Counter[int]:
    """Count the label tokens of what all ranks took."""
    rows = [row for row in flat(flat(taken)) if not isinstance(row, Blank)]
    return labels_of({k: np.asarray(v).tolist() for k, v in row.items()} for row in rows)


@both
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_label_once_a_pass(make: Any, ranks: int, shuffle: bool) -> None:
    taken = take(on_ranks(make, shuffle=shuffle), ranks)
    assert labels(taken) == labels_of(SAMPLES)
    assert len({len(batches) for batches in taken}) == 1


@both
def test_a_second_pass_gives_every_label_again_in_another_order(make: Any) -> None:
    (twice,) = take(on_ranks(make, passes=2), 1)
    assert labels([twice]) == labels_of([*SAMPLES, *SAMPLES])
    (once,) = take(on_ranks(make), 1)
    assert len(twice) > len(once)
    assert labels([twice[: len(once) // 2]]) != labels([twice[len(once) : len(once) * 3 // 2]])


@both
def test_passes_repeat_until_enough_was_taken(make: Any) -> None:
    stream = make(micro_batches=1000, passes=None)
    assert len(stream) == 1000
    assert len(list(stream)) == 1000


def test_a_stream_that_cannot_be_opened_again_ends() -> None:
    once = iter(SAMPLES)
    stream = SampleStream(lambda number: once, micro_batches=1000)
    assert labels([list(stream)]) == labels_of(SAMPLES)


@both
def test_order_follows_from_the_seed(make: Any) -> None:
    first, again, other = (labels([list(make(seed=seed))[:40]]) for seed in (1, 1, 2))
    assert first == again != other


@both
def test_ranks_share_the_batches_of_one(make: Any) -> None:
    apart = [flat(step) for step in zip(*take(on_ranks(make, passes=None), 2, 30), strict=True)]
    stream = make(passes=None)
    stream.shard(2 * BATCH)
    alone = take(lambda rank, ranks: stream, 1, 30)[0]
    assert [labels([[step]]) for step in apart] == [labels([[step]]) for step in alone]


@both
@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (2, 2)])
@pytest.mark.parametrize("micro_batches", [0, 1, 20])
def test_rest_is_sharded_over_other_ranks(
    make: Any, before: int, after: int, micro_batches: int
) -> None:
    states = [on_ranks(make)(rank, before).state_dict(micro_batches) for rank in range(before)]
    state = json.loads(json.dumps(same(states)))
    seen = take(on_ranks(make), before, micro_batches)
    rest = take(on_ranks(make, state), after)
    assert labels(seen) + labels(rest) == labels_of(SAMPLES)
    if before == after:
        whole = take(on_ranks(make), before)
        assert [labels([batches]) for batches in rest] == [
            labels([batches[micro_batches:]]) for batches in whole
        ]


@both
def test_length_once_resumed_is_what_is_left(make: Any) -> None:
    stream = make(micro_batches=30, passes=None, rank=0, num_replicas=2)
    on_three = make(micro_batches=30, passes=None, rank=0, num_replicas=3)
    stream.load_state_dict(on_three.state_dict(12))
    assert len(stream) == len(list(stream)) == 18
    again = make(micro_batches=30, passes=None)
    again.load_state_dict(stream.state_dict(5))
    assert len(again) == 13
    assert again.state_dict(0)["rows"] == 12 * 3 * BATCH + 5 * 2 * BATCH
    shorter = make(micro_batches=10, passes=None)
    shorter.load_state_dict(stream.state_dict(0))
    assert len(shorter) == len(list(shorter)) == 0


@both
def test_another_order_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="--seed"):
        make(seed=1).load_state_dict(make(seed=2).state_dict(3))
    other = padded if make is packed else packed
    with pytest.raises(ValueError, match="--batching_strategy"):
        make().load_state_dict(other().state_dict(3))


def test_packed_rows_are_full_and_keep_documents_apart() -> None:
    rows = flat(PackedStream(SampleStream(opened, passes=1), 4 * CHUNK))
    tokens = sum(len(row["input_ids"]) for row in rows)
    assert tokens == sum(len(sample["input_ids"]) for sample in SAMPLES)
    assert tokens / (len(rows) * 4 * CHUNK) > 0.99
    for row in rows:
        starts = np.flatnonzero(row["position_ids"] == 0)
        assert (row["labels"][starts] == IGNORE_INDEX).all()
        for start, end in pairwise([*starts, len(row["input_ids"])]):
            assert (np.diff(row["input_ids"][start:end]) == 1).all()


def test_padded_batches_have_similar_lengths_in_no_order() -> None:
    batches = list(padded(passes=1))
    lengths = [[len(sample["input_ids"]) for sample in batch] for batch in batches]
    assert np.mean([max(batch) - min(batch) for batch in lengths]) < 5
    shortest = [batch[0] for batch in lengths]
    assert abs(np.corrcoef(shortest, range(len(shortest)))[0, 1]) < 0.3


@pytest.mark.parametrize("ranks", [2, 3])
def test_all_ranks_get_similar_lengths_at_once(ranks: int) -> None:
    taken = take(on_ranks(padded), ranks)
    steps = [flat(step) for step in zip(*taken, strict=True)][:-2]
    lengths = [[len(sample["input_ids"]) for sample in step] for step in steps]
    assert np.mean([max(step) - min(step) for step in lengths]) < 8


def test_long_documents_are_truncated_to_packed_rows() -> None:
    long = documents(50, 200)
    stream = PackedStream(SampleStream(lambda number: iter(long), passes=1), CHUNK)
    rows = flat(stream)
    assert max(len(row["input_ids"]) for row in rows) == CHUNK
    pieces = [
        piece for each in long for piece in truncate(each["input_ids"], each["labels"], CHUNK)
    ]
    assert labels([[rows]]) == labels_of({"labels": list(own)} for _, own in pieces)


def test_samples_without_tokens_are_skipped() -> None:
    nothing = SampleStream(lambda number: iter([{"input_ids": [], "labels": []}]), passes=1)
    assert list(PackedStream(nothing, CHUNK)) == []


def test_samples_are_drawn_from_a_buffer() -> None:
    drawn = list(streaming.shuffled(range(1000), 100, np.random.RandomState(0)))
    assert sorted(drawn) == list(range(1000))
    assert all(sample < place + 100 for place, sample in enumerate(drawn))
    for part in (drawn[:500], drawn[-100:]):  # while it is filled, and once it is not any more
        assert sum(abs(first - second) == 1 for first, second in pairwise(part)) < len(part) / 5


def test_what_the_buffer_holds_is_shuffled() -> None:
    drawn = list(streaming.shuffled(range(50), 100, np.random.RandomState(0)))
    assert sorted(drawn) == list(range(50)) != drawn


def test_each_pass_is_shuffled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW", 1)  # so that nothing else changes the order
    order = [sample["input_ids"][0] for sample in flat(SampleStream(opened, passes=2))]
    first, second = order[: len(SAMPLES)], order[len(SAMPLES) :]
    assert sorted(first) == sorted(second)
    assert first != second


@both
def test_a_rank_without_rows_gets_one_that_predicts_nothing(make: Any) -> None:
    few = SampleStream(lambda number: iter(SAMPLES[:1]), passes=1)
    stream = PackedStream(few, CHUNK) if make is packed else few
    stream.shard(BATCH, rank=1, num_replicas=2)
    ((row,),) = list(stream)
    if make is packed:
        assert row["labels"].tolist() == [IGNORE_INDEX] and row["position_ids"].tolist() == [0]
    else:
        assert row == Blank(SAMPLES[0])


@both
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_repeat_nothing(make: Any, workers: int) -> None:
    loader = DataLoader(
        make(micro_batches=25), batch_size=None, num_workers=workers, collate_fn=lambda rows: rows
    )
    assert len(loader) == 25
    assert [labels([[batch]]) for batch in loader] == [
        labels([[batch]]) for batch in make(micro_batches=25)
    ]


def test_length_must_be_given() -> None:
    with pytest.raises(TypeError, match="how many micro-batches"):
        len(padded())


class UsersStream(IterableDataset[dict[str, list[int]]]):
    epochs: list[int]

    def __init__(self) -> None:
        self.epochs = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        return iter(SAMPLES)


def test_concat_dataset_of_a_stream_is_a_packed_stream() -> None:
    users = UsersStream()
    stream = ConcatDataset(users, chunk_size=CHUNK, seed=5)
    assert type(stream) is PackedStream
    assert (stream.chunk_size, stream.seed) == (CHUNK, 5)
    stream.passes = 2
    assert labels([list(stream)]) == labels_of([*SAMPLES, *SAMPLES])
    assert users.epochs == [0, 1]
    assert len(list(pickle.loads(pickle.dumps(stream)))) == len(list(stream))


def test_streams_are_distinguished_from_rows() -> None:
    import datasets

    rows = datasets.Dataset.from_list(SAMPLES)
    theirs = rows.to_iterable_dataset()
    assert is_stream(theirs) and is_stream(UsersStream()) and is_stream(padded())
    assert not is_stream(rows) and not is_stream(SAMPLES) and not is_stream(iter(SAMPLES))
    stream = as_stream(theirs)
    stream.passes = 1
    assert labels([list(stream)]) == labels_of(SAMPLES)
    assert as_stream(stream) is stream


def test_what_a_loader_resumes_is_its_stream() -> None:
    stream = packed()
    assert position.of(DataLoader(stream, batch_size=None)) is stream


def test_a_custom_collator_is_given_a_row_if_a_rank_has_none() -> None:
    import torch

    def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        return {"labels": torch.tensor([row["labels"][-1:] for row in rows])}

    few = SampleStream(lambda number: iter(SAMPLES[:1]), passes=1)
    few.shard(BATCH, rank=1, num_replicas=2)
    (batch,) = DataLoader(few, batch_size=None, collate_fn=BlankCollator(collate))
    assert batch["labels"].tolist() == [[IGNORE_INDEX]]


def test_the_longest_micro_batch_of_a_packed_stream_is_full_rows() -> None:
    """A trial sees them before the first step; what the stream gives is not touched."""
    stream = packed(3)
    loader = DataLoader(stream, batch_size=None, collate_fn=PackedCollator(0))
    longest = DataIterator(loader, 1, train_config(), TrainState()).longest()
    assert longest is not None
    usual = next(iter(loader))
    assert longest.keys() == usual.keys()
    assert {name: each.dtype for name, each in longest.items()} == {
        name: each.dtype for name, each in usual.items()
    }
    assert longest["input_ids"].shape == (1, BATCH * CHUNK)
    assert longest["position_ids"][0].tolist() == [*range(CHUNK)] * BATCH
    assert (longest["labels"] == 0).sum() == BATCH * (CHUNK - 1)
