"""The notebooks run from top to bottom, and those of both languages have the same code."""

import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from notebook_kernel import Shown, run_cells

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
CHINESE = ".zh-CN.ipynb"
NOTEBOOKS = sorted(path for path in FOLDER.glob("*.ipynb") if not path.name.endswith(CHINESE))
NAMES = [path.stem for path in NOTEBOOKS]


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code(path: Path) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == "code"]


def links(path: Path) -> list[str]:
    texts = (cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    return [link for text in texts for link in re.findall(r"\]\(([^)]+)\)", text)]


def test_the_four_are_there() -> None:
    assert NAMES == ["evaluate_and_compare", "own_data", "qlora", "quickstart"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_both_languages_have_the_same_code_and_no_output(path: Path) -> None:
    pair = path.with_name(path.stem + CHINESE)
    assert code(pair) == code(path)
    assert [cell.cell_type for cell in read(pair).cells] == [c.cell_type for c in read(path).cells]
    for each in (path, pair):
        nbformat.validate(read(each))
        cells = [cell for cell in read(each).cells if cell.cell_type == "code"]
        assert all(not cell.outputs and cell.execution_count is None for cell in cells)
        assert links(each)
        assert [link for link in links(each) if not (FOLDER / link).exists()] == []


@pytest.fixture(scope="module")
def shown(
    tiny_model: Path,
    grammar_data: Path,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, list[Shown]]:
    """What each notebook's code cells showed, on the tiny model: all in one kernel, made new."""
    work = tmp_path_factory.mktemp("notebooks")
    places = {"model": tiny_model, "data_root": grammar_data, "outputs": work / "outputs"}
    given = "\n".join(f"{name} = {str(path)!r}" for name, path in places.items()) + "\nsteps = 4"
    cells: list[str] = []
    for path in NOTEBOOKS:
        own = code(path)
        assert own[0].startswith("model = ")  # the parameters
        cells += ["%reset -f", given, *own[1:]]
    found = run_cells(cells, work, environment | {"OMP_NUM_THREADS": "1"})
    by_name: dict[str, list[Shown]] = {}
    for path in NOTEBOOKS:
        count = len(code(path)) + 1
        by_name[path.stem], found = found[2:count], found[count:]
    assert found == []
    return by_name


@pytest.mark.command
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_runs(name: str, shown: dict[str, list[Shown]]) -> None:
    assert [cell.text for cell in shown[name] if cell.error] == []
    assert "Traceback" not in "".join(cell.text for cell in shown[name])


@pytest.mark.command
def test_they_show_what_they_are_about(shown: dict[str, list[Shown]]) -> None:
    quickstart = shown["quickstart"]
    assert any("image/png" in cell.values for cell in quickstart)
    assert any("tokens_per_second" in cell.values.get("text/html", "") for cell in quickstart)
    own = "".join(cell.text for cell in shown["own_data"])
    assert "1 problem found" in own and "flawed.jsonl has no 'completion'" in own
    assert "IProgress" not in own
    comparing = "".join(cell.text for cell in shown["evaluate_and_compare"])
    assert "gleu" in comparing.lower()
    page = shown["evaluate_and_compare"][-1].values["text/plain"]
    path = Path(re.findall(r"'([^']+)'", page)[0])
    assert os.path.basename(path) == "report.html"
    assert "lr-0.0001" in path.read_text("utf-8")
