"""Batches of samples whose number is unknown, read while training.

Every rank reads the whole stream and keeps its share, so what it gets depends only on the stream,
the seed and the number of ranks. The stream may be larger than memory, or endless: it is shuffled
in a buffer and batched in windows. When it ends, it is opened again for the next pass.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import count, islice
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from llama_recipes_local.data.batch_sampler import grouped_by_length
from llama_recipes_local.data.collation import Blank
from llama_recipes_local.data.documents import Document, Row, side_by_side, without_labels
from llama_recipes_local.data.packing import pack
from llama_recipes_local.data.position import Position, resumed, seeded_rng
from llama_recipes_local.data.truncation import truncate

BUFFER = 4096
"""Samples in the shuffle buffer."""
WINDOW = 1024
"""Documents that are grouped by length, or packed, together."""
WINDOW_ROWS = 8
"""Rows that a packed window fills at least, so that little is wasted if documents are short."""

_PASSES, _WINDOWS = 0, 1  # what an RNG is for

OpenPass = Callable[[int], Iterable[Any]]


class SampleStream(IterableDataset[list[Any]]):
    """Micro-batches of samples of similar length, each a list of samples.

    The length is the number of requested micro-batches that are left. It can be resumed from a
    position, see ``data.position``: the samples taken before are read again and skipped.

    With several ``DataLoader`` workers, only the first one reads. Otherwise each would tokenise the
    whole stream, or samples would come twice.
    """

    order = "stream of samples"

    def __init__(
        self, open_pass: OpenPass, micro_batches: int | None = None, passes: int | None = None
    ) -> None:
        """Stream what ``open_pass`` opens.

        Args:
            open_pass: called with the number of the pass, from 0; returns its samples, which have
                ``input_ids`` and ``labels`` and are the same on every rank. It must be picklable
                where workers are spawned. A pass without samples ends the stream.
            micro_batches: how many to yield; None means all, and the length is unknown.
            passes: how often to read the stream; None means as often as needed.
        """
        self.open_pass = open_pass
        self.micro_batches = micro_batches
        self.passes = passes
        self.shard(batch_size=1)

    def shard(
        self,
        batch_size: int,
        rank: int = 0,
        num_replicas: int = 1,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        """Set each rank's share, and start from the beginning; see ``ShardedBatchSampler``."""
        self.batch_size = batch_size
        self.rank = rank
        self.num_replicas = num_replicas
        self.shuffle = shuffle
        self.seed = seed
        self._start = self._beginning()

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: a stream counts its passes itself."""

    def state_dict(self, micro_batches: int) -> dict[str, Any]:
        """Return the position after so many micro-batches, or since it was resumed."""
        return replace(
            self._start,
            batch_size=self.batch_size,
            rows=self._start.rows + micro_batches * self._stride,
            micro_batches=self._taken + micro_batches,
        ).state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a position, also on another number of ranks.

        Rows are still grouped by length for the number of ranks that the stream began with.

        Raises:
            ValueError: if the position is in another order.
        """
        self._start = resumed(state, self._beginning())

    def __len__(self) -> int:
        if self.micro_batches is None:
            raise TypeError("the length of a stream is unknown: say how many micro-batches")
        return max(self.micro_batches - self._taken, 0)

    def __iter__(self) -> Iterator[list[Any]]:
        worker = get_worker_info()
        if worker is not None and worker.id > 0:
            return
        rows = islice(self._rows(), self._start.rows, None)
        mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        for _ in count() if self.micro_batches is None else range(len(self)):
            group = list(islice(rows, self._stride))
            if not group:
                return
            yield group[mine] or [self._blank(group[0])]

    @property
    def _stride(self) -> int:
        return self.batch_size * self.num_replicas

    @property
    def _taken(self) -> int:
        return self._start.micro_batches or 0

    def _beginning(self) -> Position:
        return Position(self.order, self.seed, None, self.batch_size, self._stride, micro_batches=0)

    def _samples(self) -> Iterator[Any]:
        """Yield the samples of all passes, each pass shuffled."""
        for number in count() if self.passes is None else range(self.passes):
            samples = iter(self.open_pass(number))
            if self.shuffle:
                samples = shuffled(samples, BUFFER, seeded_rng(self.seed, _PASSES, number))
            first = next(samples, None)
            if first is None:
                return
            yield first
            yield from samples

    def _rows(self) -> Iterator[Any]:
        """Yield the rows of all micro-batches of all ranks."""
        samples = self._samples()
        group = self._start.group
        size = -(-WINDOW // group) * group
        for number in count():
            window = list(islice(samples, size))
            whole = len(window) - len(window) % group
            lengths = np.array([len(sample.get("input_ids", ())) for sample in window])
            random = seeded_rng(self.seed, _WINDOWS, number) if self.shuffle else None
            order = grouped_by_length(np.arange(whole), lengths, group, random)
            yield from (window[index] for index in order.tolist())
            yield from window[whole:]
            if len(window) < size:
                return

    def _blank(self, row: Any) -> Any:
        return Blank(row)


class PackedStream(SampleStream):
    """Micro-batches of packed rows, each a list of rows like those of ``ConcatDataset``.

    The emptiest row of a window is held back: its documents are packed with the next window.
    """

    order = "stream of packed rows"

    def __init__(self, stream: SampleStream, chunk_size: int = 4096, seed: int = 0) -> None:
        """Pack the samples of ``stream`` into rows of ``chunk_size`` tokens."""
        self.chunk_size = chunk_size
        super().__init__(stream.open_pass, stream.micro_batches, stream.passes)
        self.shard(batch_size=1, seed=seed)

    def longest(self) -> list[Row]:
        """Return a micro-batch of rows of full length, each a document of id 0."""
        document = np.zeros(self.chunk_size, dtype=np.int32)
        return [side_by_side([(document, document)])] * self.batch_size

    def _rows(self) -> Iterator[Row]:
        documents = self._documents()
        waiting: list[Document] = []
        for number in count():
            taken = self._window(documents, waiting)
            lengths = [len(ids) for ids, _ in waiting]
            packing = pack(lengths, self.chunk_size, self.seed, _WINDOWS, number)
            rows = [
                [waiting[index] for index in packing.row(row).tolist()]
                for row in range(len(packing))
            ]
            waiting = rows.pop(_emptiest(rows)) if taken else []
            yield from map(side_by_side, rows)
            if not taken:
                return

    def _documents(self) -> Iterator[Document]:
        for sample in self._samples():
            for ids, labels in truncate(sample["input_ids"], sample["labels"], self.chunk_size):
                if len(ids):
                    yield np.asarray(ids, dtype=np.int32), np.asarray(labels, dtype=np.int32)

    def _window(self, documents: Iterator[Document], waiting: list[Document]) -> int:
        """Add a window's documents to the waiting ones; return how many were added."""
        taken, tokens = 0, 0
        for document in documents:
            waiting.append(document)
            taken += 1
            tokens += len(document[0])
            if taken >= WINDOW and tokens >= WINDOW_ROWS * self.chunk_size:
                break
        return taken

    def _blank(self, row: Row) -> Row:
        return without_labels(row)


def _emptiest(rows: list[list[Document]]) -> int:
    tokens = [sum(len(ids) for ids, _ in row) for row in rows]
    return tokens.index(min(tokens))


def shuffled(samples: Iterable[Any], size: int, random: np.random.RandomState) -> Iterator[Any]:
    """Draw each sample at random from a buffer of the next ``size``."""
    remaining = iter(samples)
    buffer = list(islice(remaining, size))
    for sample in remaining:
        drawn = random.randint(len(buffer))
        yield buffer[drawn]
        buffer[drawn] = sample
    for index in random.permutation(len(buffer)).tolist():
        yield buffer[index]


def is_stream(dataset: object) -> bool:
    """Return whether a data set is torch's or datasets' ``IterableDataset``."""
    if isinstance(dataset, IterableDataset):
        return True
    datasets = sys.modules.get("datasets")  # a stream of it exists only if it was imported
    return datasets is not None and isinstance(dataset, datasets.IterableDataset)


def as_stream(dataset: Iterable[Any]) -> SampleStream:
    """Return an ``IterableDataset`` as a ``SampleStream``; it must not shard itself."""
    return dataset if isinstance(dataset, SampleStream) else SampleStream(_Passes(dataset))


class _Passes:
    """Opens the passes of an ``IterableDataset``."""

    def __init__(self, dataset: Iterable[Any]) -> None:
        self.dataset = dataset

    def __call__(self, number: int) -> Iterator[Any]:
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(number)
        return iter(self.dataset)
