"""The data iterator: the micro-batches of an epoch, from the run's present position in it."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from llama_recipes_local import configs
from llama_recipes_local.checkpoints import rng_state
from llama_recipes_local.data import position
from llama_recipes_local.data.batch_sampler import ShardedBatchSampler
from llama_recipes_local.data.mixed_rows import mixed_sources_of
from llama_recipes_local.data.streaming import PackedStream
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.training import batches
from llama_recipes_local.training.train_state import TrainState


class DataIterator:
    """Iterates over a rank's training batches by optimiser step, and knows its position.

    Attributes:
        dataloader: the micro-batches.
        is_stream: whether the data is a stream, which has one epoch, as long as the run.
        per_epoch: how many micro-batches an epoch has.
        taken: how many of the current epoch were taken.
        sources: names of the sources of a mixture.
    """

    def __init__(
        self,
        dataloader: DataLoader[Any],
        accumulation_steps: int,
        train_config: configs.train_config,
        state: TrainState,
    ) -> None:
        """Iterate over ``dataloader``.

        Args:
            dataloader: the micro-batches of this rank.
            accumulation_steps: micro-batches of an optimiser step.
            train_config: its ``seed`` and ``resume_despite``.
            state: how far the run has come; it is loaded before this iterator's own state.
        """
        self.dataloader = dataloader
        self.accumulation_steps = accumulation_steps
        self.per_epoch = len(dataloader)
        self.sources = mixed_sources_of(getattr(dataloader, "dataset", None))
        dealer = position.of(dataloader)
        beginning = dealer.state_dict(0) if dealer is not None else {}
        self.is_stream = beginning.get("micro_batches") is not None
        self.taken = 0
        self._seed = train_config.seed
        self._may_change = bool({"data", "tokenizer"} & set(train_config.resume_despite))
        self._state = state
        self._before = 0  # of those, taken before the run was resumed

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return -(-self.per_epoch // self.accumulation_steps)

    @property
    def steps_taken(self) -> int:
        """Optimiser steps of the current epoch that were taken."""
        return -(-self.taken // self.accumulation_steps)

    @property
    def steps_left(self) -> int:
        """Optimiser steps of the current epoch that are left."""
        return -(-(self.per_epoch - self.taken) // self.accumulation_steps)

    @property
    def since_resumed(self) -> int:
        """Micro-batches of the current epoch that were taken since the run was resumed in it."""
        return self.taken - self._before

    def steps(self, epoch: int) -> Iterator[tuple[list[batches.Batch], float]]:
        """Yield the rest of an epoch, as ``batches.in_steps`` does.

        Random numbers that a data loader draws for itself follow from the seed and the epoch, and
        do not touch the RNG state of training.
        """
        if not self.steps_left:
            return
        _set_epoch(self.dataloader, epoch)
        with rng_state.fork_rng(seed=self._seed + epoch):
            micro_batches: Iterator[batches.Batch] = iter(self.dataloader)
            if position.of(self.dataloader) is None:
                first = list(islice(micro_batches, 1))  # with it a sampler of torch's is seeded
                micro_batches = islice(chain(first, micro_batches), self._before, None)
        yield from batches.in_steps(micro_batches, self.accumulation_steps)

    def can_split(self) -> bool:
        """Return whether micro-batches may be made smaller: only with a run's own sampler."""
        return isinstance(self.dataloader.batch_sampler, ShardedBatchSampler)

    def split(self, parts: int) -> None:
        """Split each micro-batch into ``parts`` before the first is taken; steps stay the same."""
        sampler = self.dataloader.batch_sampler
        assert isinstance(sampler, ShardedBatchSampler) and not self.since_resumed
        ended = self.taken == self.per_epoch
        sampler.split(parts)
        self.accumulation_steps *= parts
        self.per_epoch = sampler.per_epoch
        if self.taken:
            self.taken = self._before = self.per_epoch - (0 if ended else len(sampler))

    def longest(self) -> batches.Batch | None:
        """Return a micro-batch of the longest rows; None if their lengths are not known."""
        sampler, rows = self.dataloader.batch_sampler, self.dataloader.dataset
        if isinstance(rows, PackedStream):
            return self.dataloader.collate_fn(rows.longest())
        lengths = getattr(rows, "row_lengths", getattr(rows, "lengths", None))
        if not isinstance(sampler, ShardedBatchSampler) or lengths is None:
            return None
        chosen = np.argsort(lengths, kind="stable")[::-1][: sampler.batch_size].tolist()
        fetch: Any = getattr(rows, "__getitems__", lambda indices: [rows[i] for i in indices])
        return self.dataloader.collate_fn(fetch(chosen))

    def took(self, micro_batches: int) -> None:
        """Count the micro-batches of a step."""
        self.taken += micro_batches

    def end_epoch(self) -> None:
        """Start the next epoch at its first micro-batch."""
        self.taken = self._before = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the data as JSON-ready data."""
        dealer = position.of(self.dataloader)
        return {
            "taken": self.taken,
            "ended": self.taken >= self.per_epoch and not self.is_stream,
            "position": dealer.state_dict(self.since_resumed) if dealer and self.taken else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume at a saved position, also on another number of ranks.

        If this data has no such position, the epoch is restarted, provided that ``resume_despite``
        allows other data.

        Raises:
            TrainingError: if this data has no such place, and other data is not allowed.
        """
        try:
            self._resume(state)
        except ValueError as error:
            if not self._may_change:
                raise TrainingError(f"the run cannot be resumed in this data: {error}") from error
            print(f"--> restarting epoch {self._state.epoch + 1} with the new data: {error}")

    def _resume(self, state: dict[str, Any]) -> None:
        if not state["taken"]:  # an epoch's beginning is the same on any number of ranks
            return
        dealer, saved = position.of(self.dataloader), state["position"]
        if (dealer is None) != (saved is None):
            raise ValueError("the data was batched in another way")
        if dealer is None or saved is None:
            self.taken = state["taken"]
        else:
            if saved["micro_batches"] is not None:  # a stream counts them over the run
                saved = saved | {"micro_batches": self._state.step * self.accumulation_steps}
            dealer.load_state_dict(saved)
            ended = state["ended"] and not self.is_stream
            self.taken = self.per_epoch if ended else self.per_epoch - len(dealer)
        self._before = self.taken


def _set_epoch(dataloader: DataLoader[Any], epoch: int) -> None:
    for name in ("batch_sampler", "sampler"):
        sampler: Any = getattr(dataloader, name, None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
