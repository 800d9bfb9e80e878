"""The position of a run in its data: an order that follows from the seed, and an offset in it.

It can be resumed on another number of ranks. Workers prefetch, so only the loop knows how far a run
is: it counts the micro-batches it took and calls ``of(dataloader).state_dict(count)``. To resume,
``load_state_dict`` is called before the ``DataLoader`` is iterated, and the loop continues the
epoch ``state["epoch"]``.
"""

from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch.utils.data import DataLoader


def seeded_rng(*seeds: int) -> np.random.RandomState:
    """Return the RNG of an order, which follows from the seeds, each taken modulo 2**32.

    numpy freezes the stream of this legacy RNG and of no other, and torch freezes none: a run that
    is resumed with newer packages must find its rows in the order that they had.
    """
    return np.random.RandomState([seed % 2**32 for seed in seeds])


@dataclass(frozen=True)
class Position:
    """A place in an order of rows, the same on every rank.

    Attributes:
        order: name of the kind of order.
        seed: the seed of the order; the epoch is used too.
        num_rows: rows in an epoch; None for a stream, whose length is unknown.
        batch_size: rows of a rank's micro-batch; for information only.
        group: rows of a micro-batch over all ranks, at the time the order was made.
        epoch: the epoch, from 0; a stream has only the first.
        rows: how many of the order's rows have been taken.
        micro_batches: how many micro-batches of a stream a rank took; None for other data.
    """

    order: str
    seed: int
    num_rows: int | None
    batch_size: int
    group: int
    epoch: int = 0
    rows: int = 0
    micro_batches: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the position as JSON-ready data."""
        return asdict(self)


SAME = {
    "order": "the batches were made in another way: give the same --batching_strategy and data",
    "seed": "the rows would come in another order: give the same --seed",
    "num_rows": "the data or its layout changed: give the same files and --context_length",
}
"""What must be as it was saved, and what to do if it is not."""


def resumed(state: dict[str, Any], now: Position) -> Position:
    """Return the saved position.

    Args:
        state: what ``Position.state_dict`` returned.
        now: the beginning of this run's order.

    Raises:
        ValueError: if the state is not a position, or one in other rows or another order.
    """
    try:
        saved = Position(**state)
    except TypeError as error:
        raise ValueError(f"this is not a position in the data: {error}") from error
    for name, reason in SAME.items():
        was, is_now = getattr(saved, name), getattr(now, name)
        if was != is_now:
            raise ValueError(f"the saved position has {name} {was}, this run {is_now}; {reason}")
    return saved


@runtime_checkable
class Resumable(Protocol):
    """What assigns rows to a ``DataLoader``'s batches: a batch sampler, or a stream."""

    def __len__(self) -> int:
        """Return the micro-batches of the current epoch; once resumed, those left in it."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that comes next."""

    def state_dict(self, micro_batches: int) -> dict[str, Any]:
        """Return the position once this many micro-batches were taken.

        They are counted from the beginning of the epoch, or from the ``load_state_dict`` in it.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a position; raises ``ValueError`` if it is not one in this data."""


def of(dataloader: DataLoader[Any]) -> Resumable | None:
    """Return what assigns a ``DataLoader``'s rows, or None if it cannot be resumed."""
    for name in ("batch_sampler", "dataset"):
        source = getattr(dataloader, name, None)
        if isinstance(source, Resumable):
            return source
    return None
