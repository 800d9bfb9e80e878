"""Which rows each rank trains on in each step: every row once an epoch, on any number of ranks."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler


class ShardedBatchSampler(Sampler[list[int]]):
    """Deals batches of row indices to ranks, in an order that is new each epoch.

    Micro-batch ``m`` of all ranks together is rows ``[m * batch_size * num_replicas, ...)`` of the
    order; each rank takes an equal run of it. So the global batch does not depend on the number of
    ranks. The last rows are dealt out too: where they do not go round, a rank's batch is short or
    empty, for all ranks must take the same number of steps.
    """

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
        self.rank = rank
        self.num_replicas = num_replicas
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_rows // self._stride)

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order(torch.Generator().manual_seed(self.seed + self.epoch))
        for start in range(0, self.num_rows, self._stride):
            first = start + self.rank * self.batch_size
            yield order[first : min(first + self.batch_size, start + self._stride)]

    @property
    def _stride(self) -> int:
        return self.batch_size * self.num_replicas

    def _order(self, generator: torch.Generator) -> list[int]:
        if not self.shuffle:
            return list(range(self.num_rows))
        return torch.randperm(self.num_rows, generator=generator).tolist()


class LengthGroupedBatchSampler(ShardedBatchSampler):
    """Puts rows of like length into a batch, and the batches in random order."""

    def __init__(self, lengths: Sequence[int], batch_size: int, **kwargs: Any) -> None:
        super().__init__(len(lengths), batch_size, **kwargs)
        self.lengths = lengths

    def _order(self, generator: torch.Generator) -> list[int]:
        by_length = sorted(range(self.num_rows), key=lambda index: self.lengths[index])
        whole = self.num_rows - self.num_rows % self._stride
        batches = [by_length[i : i + self._stride] for i in range(0, whole, self._stride)]
        if self.shuffle:
            order = torch.randperm(len(batches), generator=generator).tolist()
            batches = [batches[index] for index in order]
        return [row for batch in batches for row in batch] + by_length[whole:]
