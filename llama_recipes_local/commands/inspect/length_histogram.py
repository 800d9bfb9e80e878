"""A histogram of row lengths, as text and as a PNG file."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

BINS = 16
BAR_COLUMNS = 50


def histogram(lengths: npt.NDArray[np.int32]) -> tuple[list[int], list[int]]:
    """Count rows by length.

    Args:
        lengths: (rows,) tokens in each row, at least one row.

    Returns:
        The edges of the bins, one more than there are bins, and the number of rows in each; a bin
        has the lengths from its edge up to, but not including, the next.
    """
    longest = int(lengths.max())
    width = -(-(longest + 1) // BINS)
    edges = list(range(0, longest + width + 1, width))
    counts, _ = np.histogram(lengths, bins=edges)
    return edges, counts.tolist()


def histogram_text(lengths: npt.NDArray[np.int32]) -> str:
    """Return the histogram as text, with one line per bin."""
    edges, counts = histogram(lengths)
    highest = max(counts)
    lines = []
    for start, end, count in zip(edges, edges[1:], counts, strict=False):
        bar = "#" * -(-count * BAR_COLUMNS // highest)
        lines.append(f"{start:>7,} to {end - 1:>7,} {count:>11,} {bar}")
    return "\n".join(["         tokens        rows", *lines])


def save_histogram(lengths: dict[str, npt.NDArray[np.int32]], limit: int, path: Path) -> None:
    """Save the histogram of each split as a PNG, with a line at the context length.

    Args:
        lengths: (rows,) tokens in each row, by the split's name.
        limit: the context length, in tokens.
        path: the file to write.
    """
    from matplotlib.figure import Figure  # not pyplot, which needs a display

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    longest = max(int(each.max()) for each in lengths.values())
    bins = np.linspace(0, longest + 1, 61).tolist()
    for name, each in lengths.items():
        label = f"{name}: {len(each):,} rows, median {int(np.median(each)):,}"
        axes.hist(each, bins=bins, alpha=0.6, label=label)
    if limit <= 1.2 * longest:
        axes.axvline(limit, color="black", linestyle="--", label=f"context length {limit:,}")
    axes.set(xlabel="tokens in a row", ylabel="rows", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=120)
