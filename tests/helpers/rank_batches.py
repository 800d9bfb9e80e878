"""The batches that ranks take, with sampler arguments in place of processes."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np

from llama_recipes_local.data.token_rows import IGNORE_INDEX

PAD = 0
Batches = Any  # a batch sampler, or a stream
Make = Callable[[int, int], Batches]  # (rank, number of ranks)


def documents(count: int, longest: int = 60) -> list[dict[str, list[int]]]:
    """Make documents with prompts; no token occurs twice, the first is 1."""
    lengths = np.random.RandomState(0).randint(2, longest + 1, count).tolist()
    tokens = iter(range(1, sum(lengths) + 1))
    made = []
    for length in lengths:
        ids = list(islice(tokens, length))
        prompt = 1 + length // 3
        labels = [IGNORE_INDEX] * prompt + ids[prompt:]
        made.append({"input_ids": ids, "labels": labels, "attention_mask": [1] * length})
    return made


def labels_of(samples: Iterable[dict[str, list[int]]]) -> Counter[int]:
    return Counter(
        label for sample in samples for label in sample["labels"][1:] if label != IGNORE_INDEX
    )


def predicted(batch: dict[str, Any]) -> list[int]:
    """Return the label tokens of a collated batch."""
    labels = batch["labels"][:, 1:].flatten().tolist()
    return [label for label in labels if label != IGNORE_INDEX]


def take(make: Make, ranks: int, count: int | None = None) -> list[list[Any]]:
    """Return the first ``count`` micro-batches of each rank, or all."""
    return [list(islice(make(rank, ranks), count)) for rank in range(ranks)]


def flat(lists: Iterable[Iterable[Any]]) -> list[Any]:
    return list(chain.from_iterable(lists))


def same(values: Sequence[Any]) -> Any:
    """Return the value that all ranks share; they must not differ."""
    assert all(value == values[0] for value in values)
    return values[0]
