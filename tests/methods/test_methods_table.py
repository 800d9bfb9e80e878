"""Both languages' pages on methods show the table that the tests run."""

from pathlib import Path

import pytest
from methods import CELLS, METHODS, QUANTIZATIONS, SHARDINGS
from methods_table import CHINESE, ENGLISH, IN_CHINESE, MARKED, WORKS, make_table


@pytest.mark.parametrize("path", [ENGLISH, CHINESE], ids=lambda path: path.name)
def test_page_has_the_table(path: Path) -> None:
    (shown,) = MARKED.findall(path.read_text("utf-8"))
    assert shown == make_table(path), "run: make methods-table"


def test_table_has_every_cell() -> None:
    assert len(CELLS) == len(METHODS) * len(SHARDINGS) * len(QUANTIZATIONS)
    assert make_table().count(f" {WORKS} ") == len([c for c in CELLS if c.refused is None])


def test_every_word_of_the_table_has_a_chinese_one() -> None:
    cells = [cell.strip() for line in make_table(CHINESE).splitlines() for cell in line.split("|")]
    assert {name for name in IN_CHINESE.values() if name not in cells} == set()
    assert not [cell for cell in cells if cell in IN_CHINESE]
