"""Each format gives the same records; what is wrong with a file is one problem with its place."""

import bz2
import csv
import gzip
import json
import lzma
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from llama_recipes_local.errors import Problem, UsageError
from llama_recipes_local.records.any_format import data_and_others, format_of, records
from llama_recipes_local.records.source import Source, unreadable

ROWS = [
    {"input": "a, b", "target": 'A "b".'},
    {"input": "two\nlines", "target": "ü 😀"},
    {"input": "", "target": "x"},
]
COLUMNS = ("input", "target")


def delimited(delimiter: str) -> bytes:
    lines: list[str] = []
    writer = csv.writer(type("Out", (), {"write": lines.append})(), delimiter=delimiter)
    writer.writerows([COLUMNS, *(row.values() for row in ROWS)])
    return "".join(lines).encode()


JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
COLUMNAR = {column: [row[column] for row in ROWS] for column in COLUMNS}
TEXTS = {
    "rows.csv": delimited(","),
    "rows.tsv": delimited("\t"),
    "rows.jsonl": JSONL,
    "rows.ndjson": b"\n" + JSONL.replace(b"\n", b"\r\n\n"),
    "rows.json": json.dumps(ROWS).encode(),
    "lines.json": JSONL,
    "array.jsonl": json.dumps(ROWS, indent=1).encode(),
    "wrapped.json": json.dumps({"data": ROWS}).encode(),
    "indented.json": json.dumps({"data": ROWS}, indent=2).encode(),
    "columns.json": json.dumps(COLUMNAR, ensure_ascii=False).encode(),
    "UPPER.CSV": delimited(","),
    "train.jsonl-00000-of-00001": JSONL,
}


def by_arrow(codec: str) -> Callable[[bytes], bytes]:
    def pack(content: bytes) -> bytes:
        buffer = pa.BufferOutputStream()
        with pa.CompressedOutputStream(buffer, codec) as file:
            file.write(content)
        return buffer.getvalue().to_pybytes()

    return pack


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": by_arrow("zstd"),
    ".lz4": by_arrow("lz4"),
}


def table_bytes(columns: dict[str, list[str]], **options: Any) -> bytes:
    buffer = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue().to_pybytes()


def values(path: Path | Source, **options: Any) -> list[dict[str, Any]]:
    return [dict(row) for _, row in records(path, **options)]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["no-BOM", "BOM"])
@pytest.mark.parametrize("name", TEXTS)
def test_each_text_format_gives_the_same_records(name: str, mark: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(mark + TEXTS[name])
    assert values(path) == ROWS
    assert values(path, columns=COLUMNS) == ROWS


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.json"])
def test_each_compression_gives_the_same_records(name: str, packing: str, tmp_path: Path) -> None:
    path = tmp_path / (name + packing)
    path.write_bytes(PACKINGS[packing](TEXTS[name]))
    assert values(path) == ROWS


def test_only_the_named_columns_are_read_from_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist([row | {"id": 1} for row in ROWS]), path)
    assert values(path) == [row | {"id": 1} for row in ROWS]
    assert values(path, columns=COLUMNS) == ROWS


def test_fields_that_parquet_fills_in_are_none(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"a": "x", "turns": [{"role": "user", "call": {"city": "Oslo"}}, {"role": "tool"}]},
        {"a": None, "turns": [{"role": "user", "call": {"day": "2", "hours": [1, 2]}}]},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert values(tmp_path / "rows.parquet") == rows


def test_a_member_of_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/rows.csv", TEXTS["rows.csv"])
    assert values(Source(tmp_path / "a.zip", "in/rows.csv")) == ROWS


def test_a_format_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(TEXTS["rows.csv"])
    assert values(tmp_path / "rows", form="csv") == ROWS


def test_each_record_is_known_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\n{"a": 1}\n\n{"a": 2}')
    (tmp_path / "a.csv").write_bytes(b'a,b\n1,"x\ny"\n2,z\n')
    (tmp_path / "a.json").write_bytes(b'[{"a": 1}, {"a": 2}]')
    parquet.write_table(pa.table({"a": [1, 2]}), tmp_path / "a.parquet")
    expected = {
        "a.jsonl": ["line 2", "line 4"],
        "a.csv": ["line 3", "line 4"],
        "a.json": ["item 1", "item 2"],
        "a.parquet": ["row 1", "row 2"],
    }
    for name, places in expected.items():
        path = tmp_path / name
        assert [where for where, _ in records(path)] == [f"{place} of {path}" for place in places]


@pytest.mark.parametrize(
    "content",
    [
        b'{"messages": [{"role": "user"}, {"role": "assistant"}]}',
        b'{\n"text": "a",\n"tags": ["b"]\n}',
        b'{"a": 1, "b": {"c": [1]}}',
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_one_object_may_be_one_record(content: bytes, indent: int | None, tmp_path: Path) -> None:
    record = json.loads(content)
    (tmp_path / "a.json").write_text(json.dumps(record, indent=indent))
    assert values(tmp_path / "a.json") == [record]
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    assert values(tmp_path / "a.jsonl") == [record]


def test_a_single_line_of_json_lines_is_never_unwrapped(tmp_path: Path) -> None:
    record = {"data": [{"a": 1}, {"a": 2}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    assert values(tmp_path / "a.jsonl") == [record]


def test_lines_may_be_longer_than_a_sentence(tmp_path: Path) -> None:
    book = "word " * 600_000  # 3 MB, more than preparation allows
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": book}))
    (tmp_path / "a.csv").write_text(f"text\n{book}\n")
    for name in ("a.jsonl", "a.csv"):
        assert values(tmp_path / name) == [{"text": book}]
    problem = problem_of(tmp_path / "a.jsonl", longest=1000)
    assert problem.what == f"line 1 of {tmp_path / 'a.jsonl'} is longer than 1000 bytes"
    (tmp_path / "b.jsonl").write_text('{"text": "four"}\n')  # 17 bytes
    assert [record for _, record in records(tmp_path / "b.jsonl", longest=17)]
    assert "longer than 16 bytes" in problem_of(tmp_path / "b.jsonl", longest=16).what


@pytest.mark.parametrize("longest", [10, 200_000])
def test_the_csv_modules_limit_is_as_before_after_each_row(longest: int, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\na\n")
    before = csv.field_size_limit()
    for _, record in records(tmp_path / "a.csv", longest=longest):
        assert record == {"text": "a"}
        assert csv.field_size_limit() == before
    assert csv.field_size_limit() == before


def test_a_nul_in_a_table_is_a_space(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"input,target\na\0b,c\n")
    assert values(tmp_path / "a.csv") == [{"input": "a b", "target": "c"}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.jsonl.gz"])
def test_no_more_is_read_than_is_asked_for(name: str, tmp_path: Path) -> None:
    good = b'{"a": "1"}\n' if "json" in name else b"1\n"
    head, bad = (b"", b"{\n") if "json" in name else (b"a\n", b'"\n')
    content = head + good * 2 + bad
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert [row for _, row in islice(records(tmp_path / name), 2)] == [{"a": "1"}] * 2
    assert "line" in problem_of(tmp_path / name).what


def problem_of(path: Path, **options: Any) -> Problem:
    with pytest.raises(UsageError) as caught:
        list(records(path, **options))
    (problem,) = caught.value.problems
    return problem


HALF = b'{"a": "b"}\n{"a": "c"}\n{"a": '
NO_ROWS = "{} has no rows"
SPOILT = gzip.compress(HALF)[:10] + b"\xff" * 20
OTHER_COLUMNS = table_bytes({"a": ["b"]})
NAMED_WRONGLY = table_bytes({"zqqz": ["b"]}, store_schema=False).replace(b"zqqz", b"z\xff\xfez")
SPLITS = b'{"train": [{"a": 1}, {"a": 2}],\n"test": [{"a": 3}]}'
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    ("name", "content", "what", "why"),
    [
        ("a.csv", b"", NO_ROWS, "the file is empty"),
        ("a.csv", b"input,target\n", NO_ROWS, "nothing to train on"),
        ("a.csv", b"\n\n", "{} has no column input, target", "the columns found are none"),
        ("a.jsonl", b"\n \n", NO_ROWS, "nothing to train on"),
        ("a.json", b"[]", NO_ROWS, "nothing to train on"),
        ("a.json", b'{"data": []}', NO_ROWS, "nothing to train on"),
        ("a.csv", b"text,target\na,b\n", "{} has no column input", "found are text, target"),
        ("a.csv", b"input:target\na:b\n", "{} has no column input", "found are input:target"),
        ("a.csv", b"input,target,input\n1,2,3\n", "{} has the column input more than", "found"),
        ("a.tsv", b"input\ttarget\na\n", "line 2 of {} has 1 column", "the header has 2"),
        ("a.csv", b'input,target\na,"b', "line 2 of {} is not CSV", "unexpected end of data"),
        ("a.csv", b"input,target\na,b\nc,\xff\n", "byte 19 of {}, in line 3, is not", "0xff"),
        ("a.csv", "input,target\né,b\nc,".encode() + b"\xff", "byte 20 of {}, in line 3", "0xff"),
        ("a.jsonl", b'{"a": "b"}\n{"a": "\xff"}', "byte 18 of {}, in line 2, is not", "0xff"),
        ("a.json", b'[{"a": "b"},\n{"a": "\xff"}]', "byte 20 of {}, in line 2, is not", "0xff"),
        ("a.jsonl", "é".encode("utf-16"), "byte 0 of {}, in line 1, is not UTF-8", "0xff"),
        ("a.jsonl", HALF, "line 3 of {} is not JSON", "Expecting value: column"),
        ("a.json", HALF, "line 3 of {} is not JSON", "Expecting value: column"),
        ("a.json", b'[{"a": 1},\n{"a"', "{} is not JSON", "line 2 column 5"),
        ("a.json", b'{"a": "b', "{} is not JSON", "Unterminated string"),
        ("a.jsonl", b'{"a": 1}\n[{"a": 1}]\n', "line 2 of {} is not a JSON object", "it is [{"),
        ("a.jsonl", b'{"a": 1}\n"text"\n', "line 2 of {} is not a JSON object", "it is 'text'"),
        ("a.json", b'[{"a": 1}, 5]', "item 2 of {} is not a JSON object", "it is 5"),
        ("a.json", b'"text"', "line 1 of {} is not a JSON object", "it is 'text'"),
        ("a.json", b'{"a": [1, 2],\n"b": [1]}', "{} has columns of different", "a has 2, b has 1"),
        ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}", "line 1 of {} is not JSON", "limit"),
        ("a.jsonl", b"[" * 100_000, "{} is not a record", "nested too deeply"),
        ("a.jsonl", b'{"a": ' + b"[" * 100_000, "line 1 of {} is not a record", "nested too"),
        ("a.jsonl.gz", gzip.compress(HALF)[:-9], "{} cannot be read", "ended before"),
        ("a.jsonl.gz", SPOILT, "{} cannot be read", "Error -3 while decompressing"),
        ("a.jsonl.xz", lzma.compress(HALF)[:-9] + bytes(9), "{} cannot be read", ""),
        ("a.jsonl.bz2", b"BZh9 plain", "{} cannot be read", ""),
        ("a.jsonl.zst", b"plain", "{} cannot be read", ""),
        ("a.parquet", OTHER_COLUMNS, "{} has no column input", "the columns found are a"),
        ("a.parquet", b"PAR1", "{} cannot be read", "Parquet"),
        ("a.parquet", NAMED_WRONGLY, "{} has a column whose name is not UTF-8", "0xff"),
        ("a.parquet.gz", b"x", "{} cannot be read", "its name has no supported suffix"),
        ("a.bin", b"x", "{} cannot be read", "its name has no supported suffix"),
        ("a.xlsx", b"x", "{} is a workbook", ".xlsx files are not read"),
        ("a.zip", b"x", "{} is an archive", ".zip files are not read"),
        ("a.tar.gz", b"x", "{} is an archive", ".tar files are not read"),
        ("a.arrow", b"x", "{} is a file of Arrow", ".arrow files are not read"),
        ("a.jsonl", gzip.compress(b"{}"), "{} is not text, but a .gz file", "as its name says"),
        ("a.csv", OTHER_COLUMNS, "{} is not text, but a .parquet file", "as its name says"),
        ("a.PDF", b"x", "{} is a formatted document", ".pdf files are not read"),
        ("a.json", SPLITS, "{} holds several splits: train, test", "for training"),
        ("a.jsonl", POINTER, "{} is a pointer of Git LFS", "cloned without"),
    ],
)
def test_a_file_that_cannot_be_used(
    name: str, content: bytes, what: str, why: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    problem = problem_of(path, columns=COLUMNS)
    assert problem.what.startswith(what.format(path)), problem
    assert why in problem.why


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        (
            '{\n"input": "a"\n}\n{\n"input": "b"\n}',
            "has objects of several lines",
            "jq -c . 'my rows.jsonl' > rows.jsonl",
        ),
        (
            '{"more": {"a": 1},\n"input": "a"}\n',
            "has objects of several lines",
            "jq -c . 'my rows.jsonl' > rows.jsonl",
        ),
        (
            '{"input": "a"}, \r\n{"input": "b,"}\n',
            "has commas between its objects",
            "sed 's/,[[:space:]]*$//' 'my rows.jsonl' > rows.jsonl",
        ),
    ],
)
def test_json_that_is_not_an_object_per_line_comes_with_the_command_that_makes_it_so(
    text: str, what: str, fix: str, tmp_path: Path
) -> None:
    path = tmp_path / "my rows.jsonl"
    path.write_text(text, newline="")
    problem = problem_of(path)
    assert (problem.what, problem.fix) == (f"{path} {what}", fix)
    program = fix.split()[0]
    if shutil.which(program):
        subprocess.run(fix, shell=True, cwd=tmp_path, check=True)
        assert next(iter(records(tmp_path / "rows.jsonl")))[1]["input"] == "a"


def test_a_file_that_this_user_may_not_read_need_not_be_downloaded(tmp_path: Path) -> None:
    error = unreadable(Source(tmp_path / "a.jsonl"), PermissionError(13, "Permission denied"))
    (problem,) = error.problems
    assert problem.why == "permission denied" and "download" not in problem.fix


def test_a_missing_file_is_reported_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "train.csv").touch()
    problem = problem_of(tmp_path / "trian.csv")
    assert problem.what == f"{tmp_path / 'trian.csv'} does not exist"
    assert problem.why == f"{tmp_path} holds train.csv"
    assert problem_of(tmp_path).what == f"{tmp_path} is a folder"


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.csv", "csv"),
        ("a.tsv.gz", "tsv"),
        ("a.JSON.zst", "json"),
        ("a.JSON.GZ", "json"),
        ("a.jsonl-00001-of-00002", "json"),
        ("a-00001-of-00002.parquet", "parquet"),
        ("a.parquet.gz", ""),
        ("a.txt", ""),
        ("csv", ""),
    ],
)
def test_the_format_by_a_files_name(name: str, form: str) -> None:
    assert format_of(name) == form


def test_the_data_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("b10.csv", "b2.csv", "b2.csv.gz", "below/a.json", ".hidden.csv", "README.md"):
        (tmp_path / name).write_text("x")
    found = [path.relative_to(tmp_path).as_posix() for path in data_and_others(tmp_path, "fix")[0]]
    assert found == ["b2.csv", "b10.csv", "below/a.json"]


def test_pointers_in_a_folder_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(POINTER)
    with pytest.raises(UsageError, match="a pointer of Git LFS"):
        data_and_others(tmp_path, "fix")


def test_a_folder_without_data_files(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    with pytest.raises(UsageError) as caught:
        data_and_others(tmp_path, "name another")
    (problem,) = caught.value.problems
    assert problem.what == f"{tmp_path} contains no supported data file"
    assert "README.md" in problem.why and "parquet" in problem.why
    assert problem.fix == "name another"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("said", [False, True])
def test_what_separates_cells_is_found(
    said: bool, delimiter: str, name: str, tmp_path: Path
) -> None:
    header = delimiter.join(["input", '"target, of; it|all"'])
    row = delimiter.join(["a", '"b;c,d|e\tf"'])
    first = f"sep={delimiter}\n" if said else ""
    (tmp_path / name).write_text(f"{first}{header}\n{row}\n")
    expected = {"input": "a", "target, of; it|all": "b;c,d|e\tf"}
    assert values(tmp_path / name, columns=["input"]) == [expected]


TEXT = "\n\none\ntwo\n \n\nthree\r\n"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("", ["one\ntwo", "three"]),
        ("paragraph", ["one\ntwo", "three"]),
        ("line", ["one", "two", "three"]),
        ("file", ["\n\none\ntwo\n \n\nthree\r"]),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.MD", "a.txt.gz"])
def test_documents_of_plain_text(name: str, form: str, expected: list[str], tmp_path: Path) -> None:
    content = TEXT.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert [record["text"] for record in values(tmp_path / name, form=form)] == expected


def test_what_describes_data_is_not_data(tmp_path: Path) -> None:
    for name in ("metadata.json", "LICENSE.json", "README.md", "notes.txt", "rows.jsonl"):
        (tmp_path / name).write_text("{}")
    assert [path.name for path in data_and_others(tmp_path, "")[0]] == ["rows.jsonl"]
    (tmp_path / "rows.jsonl").unlink()
    assert [path.name for path in data_and_others(tmp_path, "")[0]] == ["notes.txt"]
    (tmp_path / "notes.txt").unlink()
    assert [path.name for path in data_and_others(tmp_path, "")[0]] == [
        "LICENSE.json",
        "metadata.json",
    ]


def test_a_folder_of_workbooks_is_refused_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").touch()
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(UsageError, match="is a workbook"):
        data_and_others(tmp_path, "")


def test_empty_lines_alone_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\n\n\n")
    with pytest.raises(UsageError, match="has no rows"):
        list(records(tmp_path / "a.csv"))
