from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from llama_recipes_local.commands.inspect.length_histogram import (
    BINS,
    histogram,
    histogram_text,
    save_histogram,
)


@pytest.mark.parametrize("lengths", [[1], [5, 5, 5], list(range(1, 100)), [1, 4096], [15], [16]])
def test_every_row_is_in_the_bin_of_its_length(lengths: list[int]):
    edges, counts = histogram(np.array(lengths, np.int32))
    assert sum(counts) == len(lengths)
    assert len(counts) <= BINS
    for start, end, count in zip(edges, edges[1:], counts, strict=False):
        assert count == sum(start <= length < end for length in lengths)


def test_the_text_has_a_line_per_bin_and_proportional_bars():
    lines = histogram_text(np.array([1] * 10 + [31] * 5, np.int32)).splitlines()
    assert lines[1].split() == ["0", "to", "1", "10", "#" * 50]
    assert lines[-1].split() == ["30", "to", "31", "5", "#" * 25]


def test_the_picture_shows_each_split_and_the_context(monkeypatch: pytest.MonkeyPatch):
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    lengths = {"train": np.arange(1, 41, dtype=np.int32), "test": np.array([3, 3], np.int32)}
    for limit in (40, 1000):
        save_histogram(lengths, limit, Path("unused.png"))
    near, far = ([text.get_text() for text in each.axes[0].get_legend().texts] for each in drawn)
    splits = ["train: 40 rows, median 20", "test: 2 rows, median 3"]
    assert sorted(near) == sorted([*splits, "context length 40"])
    assert sorted(far) == sorted(splits)
    assert sum(bar.get_height() for bar in drawn[0].axes[0].patches) == 42


def test_the_picture_is_a_png(tmp_path: Path):
    path = tmp_path / "lengths.png"
    save_histogram({"train": np.array([1, 5, 9], np.int32)}, 8, path)
    assert path.read_bytes().startswith(b"\x89PNG")
