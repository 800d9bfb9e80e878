"""Each format of C4_200M gives the same examples, streamed; what is wrong is reported."""

import bz2
import csv
import gzip
import json
import lzma
import tracemalloc
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from llama_recipes_local.commands.prepare.grammar.c4_200m import find_sources, read_examples
from llama_recipes_local.errors import Problem, UsageError

Rows = list[tuple[str, str]]

ROWS: Rows = [
    ("Bitcoin is for $7,094 this morning, which CoinDesk says.", "Bitcoin goes for $7,094."),
    ('The effect of "widespread dud" targets two', '1. The effect of "widespread dud"'),
    ("", "blank"),
    ('"', "é ü 😀"),
    ("it 's", "it's"),
    ("last", "Last."),
]


def tsv(rows: Rows) -> bytes:
    return "".join(f"{first}\t{second}\n" for first, second in rows).encode()


def csv_file(rows: Rows, path: Path) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("input", "output"), *rows])


def json_lines(rows: Rows) -> bytes:
    lines = [json.dumps({"input": first, "output": second}) for first, second in rows]
    return "\n".join(lines).encode()


def hub_unpacked(folder: Path) -> None:
    (folder / "C4_200M.tsv-00000-of-00010").write_bytes(tsv(ROWS[:4]))
    (folder / "C4_200M.tsv-00001-of-00010").write_bytes(tsv(ROWS[4:]))
    (folder / "c4_200m.py").write_text("the Hub's loader")
    (folder / "README.md").write_text("a\tb")
    (folder / ".cache").mkdir()
    (folder / ".cache/a.csv").write_text("not read")


def hub(folder: Path) -> None:
    with zipfile.ZipFile(folder / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/", b"")
        archive.writestr("data/C4_200M.tsv-00001-of-00010", tsv(ROWS[4:]))
        archive.writestr("data/C4_200M.tsv-00000-of-00010", tsv(ROWS[:4]))
        archive.writestr("__MACOSX/data/._C4_200M.tsv-00000-of-00010", b"\x00\x05\x16\x07")
        archive.writestr("data/notes.txt", b"not read")


def hub_with_its_zip_unpacked_beside(folder: Path) -> None:
    hub_unpacked(folder)
    (folder / "data.zip").write_bytes(b"not read")


def in_a_folder_below(folder: Path) -> None:
    (folder / "data/tsv").mkdir(parents=True)
    hub_unpacked(folder / "data/tsv")


def tsv_with_header_and_bom(folder: Path) -> None:
    (folder / "c4.tsv").write_bytes(b"\xef\xbb\xbfinput\toutput\n" + tsv(ROWS))


def tsv_from_windows(folder: Path) -> None:
    (folder / "c4.tsv").write_bytes(tsv(ROWS).replace(b"\n", b"\r\n"))


def tsv_without_last_line_end(folder: Path) -> None:
    (folder / "c4.tsv").write_bytes(tsv(ROWS).removesuffix(b"\n"))


def plain_csv(folder: Path) -> None:
    csv_file(ROWS, folder / "c4.csv")


def csv_with_more_columns(folder: Path) -> None:
    with (folder / "c4.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("output", "id", "input"), *((b, i, a) for i, (a, b) in enumerate(ROWS))])


def plain_json_lines(folder: Path) -> None:
    (folder / "c4.jsonl").write_bytes(json_lines(ROWS))


def json_lines_with_empty_lines(folder: Path) -> None:
    (folder / "c4.ndjson").write_bytes(b"\n" + json_lines(ROWS).replace(b"\n", b"\n\n") + b"\n\n")


def write_parquet(rows: Rows, path: Path) -> None:
    first, second = zip(*rows, strict=True)
    parquet.write_table(pa.table({"id": range(len(rows)), "input": first, "output": second}), path)


def parquet_parts(folder: Path) -> None:
    write_parquet(ROWS[:3], folder / "train-00000-of-00002.parquet")
    write_parquet(ROWS[3:], folder / "train-00001-of-00002.parquet")


def gzipped_parts(folder: Path) -> None:
    content = gzip.compress(tsv(ROWS[:2])) + gzip.compress(tsv(ROWS[2:4]))  # as pigz or cat do
    (folder / "C4_200M.tsv-00000-of-00010.gz").write_bytes(content)
    (folder / "C4_200M.tsv-00001-of-00010.gz").write_bytes(gzip.compress(tsv(ROWS[4:])))


def some_packed_some_not(folder: Path) -> None:
    hub_unpacked(folder)
    (folder / "C4_200M.tsv-00001-of-00010").unlink()
    for part, rows in (("00000", ROWS[:4]), ("00001", ROWS[4:])):
        (folder / f"C4_200M.tsv-{part}-of-00010.gz").write_bytes(gzip.compress(tsv(rows)))


def bzipped(folder: Path) -> None:
    (folder / "c4.jsonl.bz2").write_bytes(bz2.compress(json_lines(ROWS)))


def xzipped(folder: Path) -> None:
    (folder / "c4.tsv.xz").write_bytes(lzma.compress(tsv(ROWS)))


def by_arrow(suffix: str, codec: str) -> Callable[[Path], None]:
    def layout(folder: Path) -> None:
        with pa.CompressedOutputStream(str(folder / f"c4.tsv.{suffix}"), codec) as file:
            file.write(tsv(ROWS))

    layout.__name__ = codec
    return layout


def packed_in_a_zip(folder: Path) -> None:
    csv_file(ROWS, folder / "rows")
    with zipfile.ZipFile(folder / "c4.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("c4.csv.gz", gzip.compress((folder / "rows").read_bytes()))


LAYOUTS = [
    hub_unpacked,
    hub,
    hub_with_its_zip_unpacked_beside,
    in_a_folder_below,
    tsv_with_header_and_bom,
    tsv_from_windows,
    tsv_without_last_line_end,
    plain_csv,
    csv_with_more_columns,
    plain_json_lines,
    json_lines_with_empty_lines,
    parquet_parts,
    gzipped_parts,
    some_packed_some_not,
    bzipped,
    xzipped,
    by_arrow("zst", "zstd"),
    by_arrow("lz4", "lz4"),
    packed_in_a_zip,
]


def examples(path: Path) -> Rows:
    return [pair for source in find_sources(path) for pair in read_examples(source)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_same_examples(
    layout: Callable[[Path], None], tmp_path: Path
) -> None:
    layout(tmp_path)
    assert examples(tmp_path) == ROWS


def test_one_file_of_a_folder(tmp_path: Path) -> None:
    hub_unpacked(tmp_path)
    hub(tmp_path)
    assert examples(tmp_path / "C4_200M.tsv-00001-of-00010") == ROWS[4:]
    assert examples(tmp_path / "data.zip") == ROWS


def test_a_link_to_a_file_is_read_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "0123abc").write_bytes(tsv(ROWS))
    (tmp_path / "c4.tsv").symlink_to(tmp_path / "0123abc")
    assert examples(tmp_path / "c4.tsv") == ROWS


def test_parts_are_read_in_natural_order(tmp_path: Path) -> None:
    rows = [(f"in {number}", f"out {number}") for number in range(12)]
    for number, row in enumerate(rows):
        (tmp_path / f"part{number}.tsv").write_bytes(tsv([row]))
    assert examples(tmp_path) == rows


def test_a_nul_is_read_as_a_space(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b"a\0b\tc\n")
    (tmp_path / "b.csv").write_bytes(b"input,output\na\0b,c\n")
    (tmp_path / "c.jsonl").write_bytes(rb'{"input": "a\u0000b", "output": "c"}')
    for name in ("a.tsv", "b.csv", "c.jsonl"):
        assert examples(tmp_path / name) == [("a b", "c")]


def test_line_breaks_in_csv_cells_are_kept(tmp_path: Path) -> None:
    rows = [("a\nb", "c\r\nd"), ("e", "f")]
    csv_file(rows, tmp_path / "c4.csv")
    assert examples(tmp_path / "c4.csv") == rows


@pytest.mark.parametrize("layout", [hub_unpacked, plain_csv, plain_json_lines, gzipped_parts])
def test_only_the_requested_examples_are_read(
    layout: Callable[[Path], None], tmp_path: Path
) -> None:
    layout(tmp_path)
    rows = (pair for source in find_sources(tmp_path) for pair in read_examples(source))
    last = max(tmp_path.glob("[cC]4*"))
    assert [next(rows), next(rows)] == ROWS[:2]
    if last.name.endswith("00001-of-00010"):
        last.unlink()  # not opened yet
        assert [next(rows), next(rows)] == ROWS[2:4]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["tsv", "tsv.gz", "csv", "jsonl", "zip"])
def test_memory_does_not_grow_with_the_file(suffix: str, tmp_path: Path) -> None:
    rows = [(f"{number} " + "word " * 30, "word " * 30) for number in range(10_000)]
    path = tmp_path / f"c4.{suffix}"
    if suffix == "csv":
        csv_file(rows, path)
    elif suffix == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("c4.tsv", tsv(rows))
    else:
        content = json_lines(rows) if suffix == "jsonl" else tsv(rows)
        path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    del rows
    tracemalloc.start()
    try:
        (source,) = find_sources(path)
        count = sum(1 for _ in read_examples(source))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 10_000
    assert peak < 1_000_000  # the file's text has 3 MB


@pytest.mark.slow
def test_parquet_of_one_row_group_is_not_read_at_once(tmp_path: Path) -> None:
    table = pa.table({"input": [f"{i} " + "word " * 400 for i in range(20_000)]})
    table = table.append_column("output", table["input"])
    parquet.write_table(table, tmp_path / "c4.parquet", compression="none", use_dictionary=False)
    size = table.nbytes
    del table
    before = pa.total_allocated_bytes()
    (source,) = find_sources(tmp_path)
    held = [pa.total_allocated_bytes() - before for _ in read_examples(source)]
    assert len(held) == 20_000
    assert size > 80_000_000
    assert max(held) < size / 5


def problem_of(path: Path) -> Problem:
    with pytest.raises(UsageError) as caught:
        examples(path)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("name", "content", "what", "why"),
    [
        ("c4.tsv", b"a\tb\nc\n", "line 2 of {} has 1 column", "each line has 2"),
        ("c4.tsv", b"a\tb\nc\td\te\n", "line 2 of {} has 3 columns", "each line has 2"),
        ("c4.tsv", b"a\tb\n\nc\td\n", "line 2 of {} has 1 column", "each line has 2"),
        ("edits.tsv-00000-of-00010", b"0f\t8\t13\tis\n", "line 1 of {} has 4 columns", "each line"),
        ("c4.tsv", b"a\tb\nc\xc3\td\n", "byte 5 of {}, in line 2, is not UTF-8", "it is 0xc3"),
        ("c4.tsv", "a\tb\n".encode("utf-16"), "byte 0 of {}, in line 1, is not", "it is 0xff"),
        ("c4.tsv", b"a" * 2_000_000, "line 1 of {} is longer than 1048576 bytes", "a record"),
        ("c4.tsv", b"a\t" + b"b" * 200_000, "'output' in line 1 of {} has 200000", "a cell"),
        (
            "c4.csv",
            b"text,target\na,b\n",
            "{} has no column input, output",
            "the columns found are",
        ),
        ("c4.csv", b"", "{} has no column input, output", "the columns found are none"),
        ("c4.csv", b"input,output\na,b\n\nc\n", "line 4 of {} has 1 column", "the header has 2"),
        ("c4.csv", b"input,output\na,b,c\n", "line 2 of {} has 3 columns", "the header has 2"),
        ("c4.csv", b'input,output\na,"b\nc,d\n', "line 3 of {} is not CSV", "unexpected end"),
        ("c4.csv", b'input,output\n"a"x,b\n', "line 2 of {} is not CSV", "',' expected"),
        ("c4.csv", b'input,output\n"a' + b"b\n" * 99_999, "line ", "unexpected end"),
        ("c4.csv", b"input,output\na,b\n\xff,b\n", "byte 17 of {}, in line 3, is", "it is 0xff"),
        (
            "c4.jsonl",
            b'{"input": "a", "output": "b"}\n{"inp',
            "line 2 of {} is not JSON",
            "Untermi",
        ),
        ("c4.jsonl", b'{"input": "a"}', "line 1 of {} has no 'output'", "its keys are input"),
        (
            "c4.jsonl",
            b'{"input": 1, "output": ""}',
            "'input' in line 1 of {} is not text",
            "it is 1",
        ),
        ("c4.jsonl", rb'{"input": "\ud800", "output": ""}', "'input' in line 1 of {} cannot", ""),
        ("c4.jsonl", b'[\n{"input": "a"}]', "{} is a JSON array", "it is read one line"),
        ("c4.jsonl", b'\n"a"\n', "line 2 of {} is not a JSON object", "it is 'a'"),
        ("c4.parquet", b"PAR1", "{} cannot be read", "Parquet"),
        ("c4.tsv.gz", b"a\tb\n", "{} cannot be read", "Not a gzipped file"),
        ("c4.tsv.gz", gzip.compress(b"a\tb\n" * 99)[:-9], "{} cannot be read", "Compressed file"),
        ("c4.tsv.gz", gzip.compress(b"a\tb\n\xff"), "byte 4 when unpacked of {}, in line 2", ""),
        ("c4.tsv.bz2", b"a\tb\n", "{} cannot be read", "Invalid data"),
        ("c4.tsv.xz", lzma.compress(b"a\tb\n" * 99)[:-9], "{} cannot be read", "Compressed file"),
        ("c4.tsv.zst", b"a\tb\n", "{} cannot be read", ""),
        ("data.zip", b"a\tb\n", "{} cannot be read", "File is not a zip file"),
    ],
)
def test_an_unusable_file_is_refused(
    name: str, content: bytes, what: str, why: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    problem = problem_of(tmp_path)
    assert problem.what.startswith(what.format(path))
    assert problem.why.startswith(why) or why in problem.why


def test_an_unusable_member_of_a_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data/c4.tsv", b"a\tb\nc\n")
    assert problem_of(path).what == f"line 2 of data/c4.tsv in {path} has 1 column"
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"a\tb\n")] ^= 1
    path.write_bytes(damaged)
    problem = problem_of(path)
    assert problem.what == f"data/c4.tsv in {path} cannot be read"
    assert "Bad CRC-32" in problem.why


def test_a_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("c4.tsv", tsv(ROWS))
    locked = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(signature) + flags] |= 1
    path.write_bytes(locked)
    assert "password" in problem_of(path).why


def test_parquet_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xff"], pa.binary()).view(pa.string())
    path = tmp_path / "c4.parquet"
    parquet.write_table(pa.table({"input": texts, "output": texts}), path)
    problem = problem_of(path)
    assert problem.what == f"rows 1 to 2 of {path} are corrupt"
    assert "UTF8" in problem.why


def test_parquet_without_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c4.parquet"
    rows = [None if number == 1500 else "a" for number in range(2000)]
    parquet.write_table(pa.table({"input": rows, "output": ["b"] * 2000}), path)
    problem = problem_of(path)
    assert problem.what == f"'input' in row 1501 of {path} is not text"
    parquet.write_table(pa.table({"source": ["a"], "output": ["b"]}), path)
    problem = problem_of(path)
    assert problem.what == f"{path} has no column input"
    assert problem.why == "the columns found are source, output"


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    problem = problem_of(tmp_path / "c4_200m")
    assert problem.what == f"{tmp_path / 'c4_200m'} does not exist"
    assert problem.why == f"{tmp_path} holds nothing"
    assert "--c4_200m DIR" in problem.fix


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    problem = problem_of(tmp_path)
    assert problem.what == f"{tmp_path} does not contain C4_200M"
    assert problem.why.startswith("it holds nothing; C4_200M is read from tsv")
    (tmp_path / "c4_200m.py").touch()
    assert problem_of(tmp_path).why.startswith("it holds c4_200m.py; ")
    assert "has no supported extension" in problem_of(tmp_path / "c4_200m.py").why


@pytest.mark.parametrize(("members", "told"), [([], "nothing"), (["a.txt", "b"], "a.txt, b")])
def test_a_zip_without_data_is_refused(members: list[str], told: str, tmp_path: Path) -> None:
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in members:
            archive.writestr(name, b"a\tb\n")
    assert problem_of(tmp_path).why.startswith(f"{path} holds {told}; ")


def test_files_of_several_formats_are_refused(tmp_path: Path) -> None:
    hub_unpacked(tmp_path)
    plain_csv(tmp_path)
    problem = problem_of(tmp_path)
    assert problem.what == f"{tmp_path} contains C4_200M in several formats"
    assert "csv (c4.csv), tsv (C4_200M.tsv-00000-of-00010)" in problem.why


@pytest.mark.parametrize("name", ["data.zip", "c4.tsv"])
def test_a_git_lfs_pointer_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("version https://git-lfs.invalid/spec/v1\noid sha256:00\nsize 1\n")
    problem = problem_of(tmp_path)
    assert problem.what == f"{tmp_path / name} is a pointer of Git LFS, not the data"
    assert f"git -C {tmp_path} lfs pull" in problem.fix


def test_the_first_examples_of_a_truncated_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "c4.tsv").write_bytes(tsv(ROWS) + b"half")
    (source,) = find_sources(tmp_path)
    assert list(islice(read_examples(source), len(ROWS))) == ROWS
