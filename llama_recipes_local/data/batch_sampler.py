"""Which rows each rank trains on in each step: every row once an epoch, on any number of ranks."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from llama_recipes_local.data.position import Position, resumed, seeded_rng

MEGABATCH = 50
"""Groups whose rows are sorted by length together."""


class ShardedBatchSampler(Sampler[list[int]]):
    """Assigns batches of row indices to ranks, in an order that is new each epoch.

    Micro-batch ``m`` of all ranks together is rows ``[m * batch_size * num_replicas, ...)`` of the
    order; each rank takes an equal share of it. So the global batch does not depend on the number
    of ranks. The last rows are used too: if they are too few for all ranks, a rank's batch is short
    or empty, because all ranks must take the same number of steps. It can be resumed from a
    position in the order, see ``data.position``.
    """

    order = "shuffled rows"

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        rank: int = 0,
        num_replicas: int = 1,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        self.num_rows = num_rows
        self.batch_size = batch_size
        self._group = batch_size * num_replicas
        self.rank = rank
        self.num_replicas = num_replicas
        self.shuffle = shuffle
        self.seed = seed
        self._start = self._beginning(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; the one that was resumed keeps its position."""
        if epoch != self._start.epoch:
            self._start = self._beginning(epoch)

    @property
    def epoch(self) -> int:
        """The epoch whose order comes next."""
        return self._start.epoch

    def state_dict(self, micro_batches: int) -> dict[str, Any]:
        """Return the position after so many micro-batches of the epoch, or since it was resumed."""
        rows = self._start.rows + micro_batches * self._stride
        if rows < self.num_rows:
            return replace(self._start, rows=rows, batch_size=self.batch_size).state_dict()
        return self._beginning(self.epoch + 1).state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a position, also on another number of ranks.

        The rest of its epoch keeps the order of the run that saved it; later epochs have this
        sampler's own.

        Raises:
            ValueError: if the position is in other rows or another order.
        """
        self._start = resumed(state, self._beginning(0))

    def split(self, parts: int) -> None:
        """Split each micro-batch into several: the same rows, in the same order.

        Args:
            parts: number of parts; it divides a micro-batch's rows.
        """
        assert self.batch_size % parts == 0
        self.batch_size //= parts

    @property
    def per_epoch(self) -> int:
        """Micro-batches of a rank in a whole epoch."""
        return -(-self.num_rows // self._stride)

    def __len__(self) -> int:
        return -(-(self.num_rows - self._start.rows) // self._stride)

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order(self._start)
        for start in range(self._start.rows, self.num_rows, self._stride):
            first = start + self.rank * self.batch_size
            yield order[first : first + self.batch_size].tolist()

    @property
    def _stride(self) -> int:
        return self.batch_size * self.num_replicas

    def _beginning(self, epoch: int) -> Position:
        return Position(
            self.order, self.seed, self.num_rows, self.batch_size, self._group, epoch=epoch
        )

    def _order(self, position: Position) -> NDArray[np.int64]:
        """Return all rows in the order of the position's epoch."""
        if not self.shuffle:
            return np.arange(self.num_rows)
        return seeded_rng(self.seed, position.epoch).permutation(self.num_rows)


class LengthGroupedBatchSampler(ShardedBatchSampler):
    """Groups rows of similar length into batches, and shuffles the batches.

    The rows are shuffled, and within each ``MEGABATCH`` groups of that order they are sorted by
    length. So a row has other neighbours in each epoch, and no length is always first or last: the
    rows that do not fill a group are the last of the shuffled order, whatever their length. Without
    shuffling, rows and groups otherwise keep the data's order.
    """

    order = "similar lengths"

    def __init__(
        self,
        lengths: Sequence[int] | NDArray[np.int32],
        batch_size: int,
        group_size: int = 0,
        **kwargs: Any,
    ) -> None:
        """Group ``group_size`` rows of a rank, or as many as a batch has."""
        super().__init__(len(lengths), batch_size, **kwargs)
        self.lengths = np.asarray(lengths)
        self._group = (group_size or batch_size) * self.num_replicas
        self._start = self._beginning(0)

    def _order(self, position: Position) -> NDArray[np.int64]:
        random = seeded_rng(self.seed, position.epoch) if self.shuffle else None
        rows = random.permutation(self.num_rows) if random else np.arange(self.num_rows)
        whole = self.num_rows - self.num_rows % position.group
        size = MEGABATCH * position.group
        megabatches = np.split(rows[:whole], range(size, whole, size))
        ordered = [
            grouped_by_length(megabatch, self.lengths, position.group, random)
            for megabatch in megabatches
        ]
        return np.concatenate([*ordered, rows[whole:]])


def grouped_by_length(
    rows: NDArray[np.int64],
    lengths: NDArray[np.int32],
    group: int,
    random: np.random.RandomState | None,
) -> NDArray[np.int64]:
    """Group rows of similar length, and shuffle the groups.

    Args:
        rows: (rows,) indices, a multiple of ``group``.
        lengths: (all rows,) tokens of each.
        group: rows of a group.
        random: the RNG that shuffles the groups; None orders them by their first rows.
    """
    groups = rows[np.argsort(lengths[rows], kind="stable")].reshape(-1, group)
    order = random.permutation(len(groups)) if random else np.argsort(groups.min(axis=1))
    return groups[order].ravel()


class GroupedBatchSampler(Sampler[list[int]]):
    """Assigns rows to ranks so that in each micro-batch all ranks have rows of the same group.

    The groups' micro-batches are spread evenly, and the order begins with one of each group, so
    that the first few contain all groups. This is for validation: it has no position to resume
    from.

    Attributes:
        names: names of the groups.
        order: the group of each micro-batch.
    """

    def __init__(
        self, names: Sequence[str], groups: Sequence[tuple[NDArray[np.int64], ShardedBatchSampler]]
    ) -> None:
        """Spread the groups' micro-batches.

        Args:
            names: a name for each group.
            groups: for each group its rows, and a sampler that assigns their positions.
        """
        self.names = tuple(names)
        self._groups = list(groups)
        counts = [len(sampler) for _, sampler in groups]
        places = [np.arange(count) / max(count, 1) for count in counts]
        of_batch = np.repeat(np.arange(len(counts)), counts)
        self.order: list[int] = of_batch[np.argsort(np.concatenate(places), kind="stable")].tolist()

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[list[int]]:
        batches = [iter(sampler) for _, sampler in self._groups]
        for group in self.order:
            rows = self._groups[group][0]
            yield rows[next(batches[group])].tolist()
