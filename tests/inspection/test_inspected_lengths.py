from pathlib import Path

import numpy as np
import pytest

from llama_recipes_local.inspection.lengths import histogram, histogram_text, save_histogram


@pytest.mark.parametrize("lengths", [[1], [5, 5, 5], list(range(1, 100)), [1, 4096], [15], [16]])
def test_every_row_is_in_the_bin_of_its_length(lengths: list[int]):
    edges, counts = histogram(np.array(lengths, np.int32))
    assert sum(counts) == len(lengths)
    for start, end, count in zip(edges, edges[1:], counts, strict=False):
        assert count == sum(start <= length < end for length in lengths)


def test_the_text_has_a_line_a_bin_and_bars_in_proportion():
    lines = histogram_text(np.array([1] * 10 + [31] * 5, np.int32)).splitlines()
    assert lines[1].split() == ["0", "to", "1", "10", "#" * 50]
    assert lines[-1].split() == ["30", "to", "31", "5", "#" * 25]


def test_the_picture_is_a_png(tmp_path: Path):
    path = tmp_path / "lengths.png"
    save_histogram({"train": np.array([1, 5, 9], np.int32)}, 8, path)
    assert path.read_bytes().startswith(b"\x89PNG")
