"""Both READMEs show the table that the tests run."""

from pathlib import Path

import pytest
from methods import CELLS, METHODS, QUANTIZATIONS, SHARDINGS
from methods_table import MARKED, READMES, WORKS, make_table


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_readme_has_the_table(path: Path) -> None:
    (shown,) = MARKED.findall(path.read_text("utf-8"))
    assert shown == make_table(), "run: make methods-table"


def test_table_has_every_cell() -> None:
    assert len(CELLS) == len(METHODS) * len(SHARDINGS) * len(QUANTIZATIONS)
    assert make_table().count(f" {WORKS} ") == len([c for c in CELLS if c.refused is None])
