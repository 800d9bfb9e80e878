"""The iterator over a script's own loader: its random order, and the RNG state of training."""

import torch
from torch.utils.data import DataLoader

from llama_recipes_local import configs
from llama_recipes_local.data.batch_sampler import ShardedBatchSampler
from llama_recipes_local.training.data_iterator import DataIterator
from llama_recipes_local.training.train_state import TrainState

ROWS = [{"input_ids": torch.tensor([number])} for number in range(40)]


def order_of(epoch: int, seed: int = 1, after: int = 0) -> list[int]:
    """Return the rows of an epoch, of a run that was resumed after some micro-batches."""
    loader = DataLoader(ROWS, batch_size=2, shuffle=True)  # type: ignore[arg-type]
    iterator = DataIterator(loader, 2, configs.train_config(seed=seed), TrainState())
    iterator.load_state_dict({"taken": after, "position": None})
    return [
        number
        for group, _ in iterator.steps(epoch)
        for batch in group
        for number in batch["input_ids"].flatten().tolist()
    ]


def test_a_loaders_own_order_follows_from_seed_and_epoch() -> None:
    assert order_of(0) == order_of(0)
    assert order_of(0) != order_of(1)
    assert order_of(0) != order_of(0, seed=7)
    assert sorted(order_of(1)) == [*range(len(ROWS))]


def test_a_resumed_run_continues_a_loaders_own_order() -> None:
    torch.manual_seed(3)  # as a checkpoint's RNG state, which is another than at the beginning
    assert order_of(2, after=8) == order_of(2)[2 * 8 :]


def test_a_loaders_order_draws_nothing_from_the_rng_of_training() -> None:
    before = torch.get_rng_state()
    order_of(0)
    assert torch.get_rng_state().equal(before)


def test_an_epoch_that_has_ended_stays_so_if_micro_batches_are_made_smaller() -> None:
    def iterator() -> DataIterator:
        sampler = ShardedBatchSampler(len(ROWS), batch_size=4, seed=1)
        loader = DataLoader(ROWS, batch_sampler=sampler)  # type: ignore[arg-type]
        return DataIterator(loader, 2, configs.train_config(), TrainState())

    for taken, left in ((10, 0), (6, 2)):
        saved = iterator()
        saved.took(taken)
        resumed = iterator()
        resumed.load_state_dict(saved.state_dict())
        assert (resumed.steps_left, resumed.taken) == (left, taken)
        resumed.split(2)
        assert (resumed.steps_left, resumed.taken) == (left, 2 * taken)
