"""Reading rows, and what is said of a file that cannot be used."""

from pathlib import Path

import pytest

from llama_recipes_local.datasets import readers

FLAG = "--data=FILE"
COLUMNS = ("input", "target")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_and_json_with_and_without_a_byte_order_mark(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_text("input,target\nü,é\n", encoding)
    assert list(readers.read_csv(file)) == [{"input": "ü", "target": "é"}]
    assert readers.check_csv(file, COLUMNS, FLAG) == []
    file.write_text('[{"input": "ü"}]', encoding)
    assert readers.read_json(file) == [{"input": "ü"}]
    assert readers.check_json(file, ("input",), FLAG) == []


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "{file} is no file"),
        (b"", "{file} has no rows"),
        (b"input,target\n", "{file} has no rows"),
        (b"\xef\xbb\xbf", "{file} has no rows"),
        (b"text,target\na,b\n", "{file} has no column input"),
        (b"a\nb\n", "{file} has no column input, target"),
        (b"input,target\n\xff\xfe,b\n", "{file} cannot be read as CSV"),
        (b"input,target\n" + b"a,b\n" * 50_000 + b"\xff,b\n", "{file} cannot be read as CSV"),
        (b"input,target\n" + b"a" * 200_000 + b",b\n", "{file} cannot be read as CSV"),
    ],
    ids=[
        "missing",
        "empty",
        "header only",
        "byte order mark only",
        "a column missing",
        "both columns missing",
        "not UTF-8",
        "not UTF-8 at the end",
        "a cell too long",
    ],
)
def test_what_is_wrong_with_a_csv_file(content: bytes | None, what: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    if content is not None:
        file.write_bytes(content)
    (problem,) = readers.check_csv(file, COLUMNS, FLAG)
    assert problem.what == what.format(file=file)
    assert problem.why and problem.mend


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "{file} is no file"),
        (b"", "{file} has no rows"),
        (b"[]", "{file} has no rows"),
        (b"[{]", "{file} is not JSON"),
        (b'["\xff"]', "{file} is not JSON"),
        (b'{"input": 1}', "{file} is not a JSON list"),
        (b"5", "{file} is not a JSON list"),
        (b'[{"input": 1}, {"output": 2}]', "record 1 of {file} lacks"),
        (b'[{"input": 1}, "text"]', "record 1 of {file} lacks"),
    ],
)
def test_what_is_wrong_with_a_json_file(content: bytes | None, what: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    if content is not None:
        file.write_bytes(content)
    (problem,) = readers.check_json(file, ("input",), FLAG)
    assert problem.what.startswith(what.format(file=file))
    assert problem.why and problem.mend


def test_a_missing_file_is_told_with_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "train.csv").touch()
    problem = readers.check_file(tmp_path / "trian.csv", FLAG)
    assert problem is not None
    assert problem.why == "its folder holds train.csv"
    assert FLAG in problem.mend


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    problem = readers.check_file(tmp_path / "none" / "a.csv", FLAG)
    assert problem is not None
    assert problem.why == f"its folder {tmp_path / 'none'} does not exist"


def test_the_columns_found_are_told(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text;target\na;b\n")
    (problem,) = readers.check_csv(file, COLUMNS, FLAG)
    assert problem.why == "the columns found are text;target"
    assert "input,target" in problem.mend and FLAG in problem.mend


def test_further_columns_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("id,target,input\n1,b,a\n")
    assert readers.check_csv(file, COLUMNS, FLAG) == []
