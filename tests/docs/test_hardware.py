"""``docs/hardware.md`` shows what is computed, and beside it what was measured."""

from pathlib import Path

import memory
import predictions
import pytest
import scaling

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("page", memory.PAGES)
def test_the_tables_are_those_of_the_formula(page: str) -> None:
    text = (PROJECT / "docs" / page).read_text("utf-8")
    for table in (memory.one_card, memory.several_cards):
        assert table(page) in text, "run: python benchmarks/memory.py"
    assert predictions.table(page) in text, "run: python benchmarks/predictions.py"
    assert scaling.table(page) in text, "run: python benchmarks/scaling.py"


def test_the_readmes_table_is_a_part_of_the_pages() -> None:
    rows = [
        line.split("|")[1:-1] for line in memory.several_cards("hardware.md").splitlines() if line
    ]
    counted = {f"{row[0].strip()} {row[1].strip()}": row[2:] for row in rows[2:]}
    text = (PROJECT / "README.md").read_text("utf-8")
    table = text[text.index("| cards needed |") :].split("\n\n")[0].splitlines()[2:]
    shown = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in table}
    for name, cells in shown.items():
        *models, last = name.replace(" or LoRA", "").split(", ")
        model, method = last.split()
        assert all(counted[f"{each} {method}"] == cells for each in [*models, model]), name
    assert len(shown) >= 8
