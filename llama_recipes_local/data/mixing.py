"""Selects the rows of a mixture's epoch, so that each source has its share of the label tokens.

A weight is a share of the label tokens, because the loss is their mean. With weights of 0.7 and
0.3, the loss of an epoch is 0.7 times the mean loss on one source and 0.3 times that on the other,
however long their prompts are. Interleaving by rows, as datasets' own function does, would give
more weight to a source with long answers.

An epoch contains every row of every source. The source with the most label tokens for its weight
comes once, and the others are repeated. (datasets calls this "all_exhausted"; its default,
"first_exhausted", leaves rows out.) A source is repeated whole, and then in part: the seed selects
rows that come once more. This selection is the same in each epoch, as is the packing; only the
order changes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from llama_recipes_local.data.audit import Counts, SplitAudit, audit_split
from llama_recipes_local.data.mixed_rows import MixedRows, Order
from llama_recipes_local.data.position import seeded_rng
from llama_recipes_local.data.token_rows import Int32, TokenRows

MOST_TIMES = 1000
"""How often a source may come in an epoch: more is a mistake in the weights, and fills memory."""
USEFUL_TIMES = 4
"""How often data may come and still teach nearly as new data does (2305.16264)."""
_MIXING = 0x6D6978  # what an RNG is for


@dataclass(frozen=True)
class SourceShare:
    """A source's part of an epoch.

    Attributes:
        weight: the share of the label tokens that was requested, between 0 and 1.
        share: the share that the source has.
        share_of_tokens: its share of all tokens, prompts included.
        label_tokens: its label tokens.
        rows: its rows, each counted as often as it comes.
        times: how often its label tokens come in an epoch.
        validation_rows: its rows for validation.
    """

    weight: float
    share: float
    share_of_tokens: float
    label_tokens: int
    rows: int
    times: float
    validation_rows: int = 0


def times_needed(label_tokens: Sequence[int], weights: Sequence[float]) -> list[float]:
    """Return how often each source comes in an epoch, 1 or more.

    Args:
        label_tokens: label tokens of each source, above 0.
        weights: weight of each source, above 0, on any scale.
    """
    total = max(have / weight for have, weight in zip(label_tokens, weights, strict=True))
    return [weight * total / have for have, weight in zip(label_tokens, weights, strict=True)]


def mixed(parts: Mapping[str, TokenRows], weights: Mapping[str, float], seed: int) -> MixedRows:
    """Return the rows of an epoch.

    Args:
        parts: the sources' training rows by name; each has label tokens.
        weights: the sources' weights, above 0, on any scale.
        seed: selects the rows that come once more than others.
    """
    counts = [rows.label_counts.astype(np.int64) for rows in parts.values()]
    have = [int(each.sum()) for each in counts]
    times = times_needed(have, [weights[name] for name in parts])
    starts = np.cumsum([0, *map(len, counts)])
    chosen = [
        start + _rows(labels, round(often * total), seed, number)
        for number, (start, labels, often, total) in enumerate(
            zip(starts[:-1], counts, times, have, strict=True)
        )
    ]
    return MixedRows(parts, np.concatenate(chosen))


def _rows(labels: npt.NDArray[np.int64], wanted: int, *seeds: int) -> Order:
    """Return a source's rows, repeated as needed.

    Args:
        labels: (rows,) label tokens in each row.
        wanted: label tokens that an epoch needs of the source.
        seeds: select the rows that come once more than others.
    """
    passes, rest = divmod(wanted, int(labels.sum()))
    drawn = seeded_rng(_MIXING, *seeds).permutation(len(labels))
    sums = np.cumsum(labels[drawn])
    taken = int(np.searchsorted(sums, rest, side="right"))
    more, others = drawn[:taken].tolist(), drawn[taken:]
    left = rest - (int(sums[taken - 1]) if taken else 0)
    while (fitting := np.flatnonzero(labels[others] <= left)).size:
        more.append(int(others[fitting[0]]))
        left -= int(labels[more[-1]])
        others = others[fitting[1:]]
    every = np.tile(np.arange(len(labels)), passes)
    return np.concatenate([every, np.array(sorted(more), np.int64)])


def mixed_audit(rows: MixedRows, sources: Sequence[SplitAudit]) -> SplitAudit:
    """Return the audit of mixed rows; those that a mixture repeats are not counted as repeated."""
    counts = Counts()
    for source in sources:
        counts.add(source.counts)
    return replace(audit_split(rows, counts), repeated=rows.repeated)


def mixed_fingerprint(fingerprints: Sequence[str], weights: Sequence[float]) -> str:
    """Return a hash of what mixed rows are made from."""
    total = sum(weights)
    content = [list(fingerprints), [weight / total for weight in weights]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def shares(
    rows: MixedRows, weights: Mapping[str, float], validation: Mapping[str, int]
) -> dict[str, SourceShare]:
    """Return each source's part of an epoch, by name.

    Args:
        rows: the epoch's rows.
        weights: the sources' weights.
        validation: the number of their rows for validation, by name.
    """
    labels = _by_source(rows, rows.label_counts)
    tokens = _by_source(rows, rows.lengths)
    once = [int(part.label_counts.sum(dtype=np.int64)) for part in rows.parts.values()]
    numbers = np.bincount(rows.sources, minlength=len(rows.names)).tolist()
    total = sum(weights.values())
    return {
        name: SourceShare(
            weight=weights[name] / total,
            share=labels[place] / sum(labels),
            share_of_tokens=tokens[place] / sum(tokens),
            label_tokens=labels[place],
            rows=numbers[place],
            times=labels[place] / once[place],
            validation_rows=validation.get(name, 0),
        )
        for place, name in enumerate(rows.names)
    }


def _by_source(rows: MixedRows, counts: Int32) -> list[int]:
    each = np.zeros(len(rows.names), np.int64)
    np.add.at(each, rows.sources, counts)
    return [int(number) for number in each]


def share_table(found: Mapping[str, SourceShare]) -> str:
    """Return the shares as text, a line a source."""
    titles = ("weight", "share", "label tokens", "of all tokens", "rows", "times", "validation")
    lines = [("mixture, an epoch", *titles)]
    lines += [
        (
            name,
            f"{each.weight:.2%}",
            f"{each.share:.2%}",
            f"{each.label_tokens:,}",
            f"{each.share_of_tokens:.2%}",
            f"{each.rows:,}",
            f"{each.times:.2f}",
            f"{each.validation_rows:,}",
        )
        for name, each in found.items()
    ]
    first, *widths = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(
        f"{name:<{first}}" + "".join(f"{c:>{w + 2}}" for c, w in zip(cells, widths, strict=True))
        for name, *cells in lines
    )
