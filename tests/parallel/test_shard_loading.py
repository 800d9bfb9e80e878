"""With ``--low_cpu_fsdp`` each rank loads its own shards, and trains as without it."""

from typing import Any

import pytest

pytestmark = pytest.mark.ranks


@pytest.mark.parametrize(
    ("launched", "name", "ordinary"),
    [
        ("two_ranks", "low-cpu", "FULL_SHARD"),
        ("two_ranks", "low-cpu-offloaded", "offloaded"),
        ("two_ranks", "low-cpu-replicated", "NO_SHARD"),
        ("four_ranks", "low-cpu-hybrid", "HYBRID_SHARD"),
    ],
)
def test_adapters_train_to_the_same_bits(
    request: pytest.FixtureRequest, launched: str, name: str, ordinary: str
) -> None:
    runs = request.getfixturevalue(launched)
    ours, theirs = runs[name], runs[ordinary]
    assert [step["loss"] for step in ours.steps] == [step["loss"] for step in theirs.steps]
    assert ours.adapter.keys() == theirs.adapter.keys()
    assert all(tensor.equal(theirs.adapter[key]) for key, tensor in ours.adapter.items())


def test_all_weights_train_to_the_same_bits(two_ranks: Any) -> None:
    ours, theirs = two_ranks["low-cpu-full"], two_ranks["full"]
    assert [step["loss"] for step in ours.steps] == [step["loss"] for step in theirs.steps]
    assert ours.model.keys() == theirs.model.keys()
    assert all(tensor.equal(theirs.model[key]) for key, tensor in ours.model.items())


def test_it_is_reported(two_ranks: Any) -> None:
    said = two_ranks.launched.out[0]
    assert said.count("--> Weights: each rank has loaded its shards from the files") == 4
