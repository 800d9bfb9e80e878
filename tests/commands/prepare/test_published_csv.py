"""The layout of the published files, byte for byte; a file appears whole or not at all."""

import csv
import io
from pathlib import Path

import pytest

from llama_recipes_local.commands.prepare.grammar.command import PUBLISHED_FOLDER
from llama_recipes_local.commands.prepare.grammar.published_csv import csv_line, published_csv

Rows = list[tuple[str, str]]


def written(rows: Rows, folder: Path) -> bytes:
    target = folder / "written.csv"
    with published_csv(target) as file:
        for row in rows:
            file.write(csv_line(*row))
    return target.read_bytes()


def through_pandas(rows: Rows, folder: Path) -> bytes:
    """What the guide's script makes of the rows."""
    import pandas as pd

    with (folder / "between.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("input", "target"), *rows])
    frame = pd.concat([pd.read_csv(folder / "between.csv")])
    frame.to_csv(folder / "pandas.csv", index=False, encoding="utf-8-sig")
    return (folder / "pandas.csv").read_bytes()


@pytest.mark.parametrize(
    ("name", "count"), [("gtrain_10k.csv", 13_016), ("grammar_validation.csv", 2_988)]
)
def test_the_published_files_are_reproduced(name: str, count: int, tmp_path: Path) -> None:
    published = (PUBLISHED_FOLDER / name).read_bytes()
    text = io.StringIO(published.decode("utf-8-sig"), newline="")
    header, *rows = csv.reader(text)
    assert header == ["input", "target"]
    assert len(rows) == count
    pairs = [(first, second) for first, second in rows]
    assert written(pairs, tmp_path) == published
    assert through_pandas(pairs, tmp_path) == published


def test_the_bytes_of_a_small_file(tmp_path: Path) -> None:
    rows = [("a, b", 'say "c"'), ("é", " ")]
    assert written(rows, tmp_path) == (
        b'\xef\xbb\xbfinput,target\n"a, b","say ""c"""\n\xc3\xa9, \n'
    )


@pytest.mark.parametrize(
    "cell",
    [
        "plain",
        "a,b",
        'a "b" c',
        '"',
        "a\nb",
        "a\r\nb",
        "\n",
        " ",
        "  a ",
        "a\tb",
        "'a'",
        "# a",
        "a\\,b",
        "=1+1",
        "\u2028",
        "\x85é",
        "😀",
        "\ufeffa",
        " NA ",
    ],
)
def test_each_kind_of_cell_is_written_as_by_pandas(cell: str, tmp_path: Path) -> None:
    rows = [(cell, "x"), ("y", cell), ("word", "word")]
    assert written(rows, tmp_path) == through_pandas(rows, tmp_path)


@pytest.mark.parametrize("cell", ["a\rb", "\r", 'a\r"b"', "NA", "None", "null", "nan", "01"])
def test_what_pandas_would_change_is_read_back_unchanged(cell: str, tmp_path: Path) -> None:
    rows = [(cell, cell)]
    content = written(rows, tmp_path)
    assert list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))[1:] == [
        [cell, cell]
    ]
    if "\r" not in cell:  # which is quoted there by some Pythons and not by others
        assert content != through_pandas(rows, tmp_path)


def test_a_failed_write_keeps_the_existing_file(tmp_path: Path) -> None:
    target = tmp_path / "rows.csv"
    target.write_text("before")
    with pytest.raises(KeyboardInterrupt), published_csv(target) as file:
        file.write(csv_line("a", "b"))
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    assert target.read_text() == "before"


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "rows.csv"
    with published_csv(target) as file:
        file.write(csv_line("a", "b"))
        file.flush()
        assert not target.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_the_draft_of_a_killed_run_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".rows.csv.incomplete").write_text("half a r")
    with published_csv(tmp_path / "rows.csv") as file:
        file.write(csv_line("a", "b"))
    assert (tmp_path / "rows.csv").read_bytes() == b"\xef\xbb\xbfinput,target\na,b\n"
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
