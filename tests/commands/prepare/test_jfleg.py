"""Each layout that JFLEG is found in gives the same sentences; what is wrong is reported."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from llama_recipes_local.commands.prepare.grammar.jfleg import find_splits, read_split
from llama_recipes_local.errors import Problem, UsageError

Rows = list[tuple[str, list[str]]]

# the last of each is blank, as on the Hub
VALIDATION: Rows = [
    ("For not use car . ", ["Not for use with a car . ", "Do not use ü .", "Car .", "Can not ."]),
    ('He said " no "', ["a", "b, c", "", "d"]),
    ("", ["", "", "", ""]),
]
TEST: Rows = [("New and new .", ["e", "f", "g", "h"]), ("", ["", "", "", ""])]
SPLITS = {"validation": VALIDATION, "test": TEST}


def write_parquet(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sentences, corrections = zip(*rows, strict=True)
    table = pa.table({"sentence": sentences, "corrections": corrections})
    parquet.write_table(table, path, row_group_size=1)


def records(rows: Rows) -> list[dict[str, Any]]:
    return [{"sentence": sentence, "corrections": refs} for sentence, refs in rows]


def write_json_lines(path: Path, rows: Rows) -> None:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records(rows)))


def write_text(path: Path, rows: Rows, end: str = "\n") -> None:
    """Write ``path`` with the sentences, and ``.ref0`` to ``.ref3`` next to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [[row[0] for row in rows], *([row[1][i] for row in rows] for i in range(4))]
    for suffix, column in zip([".src", ".ref0", ".ref1", ".ref2", ".ref3"], columns, strict=True):
        lines = "".join(f"{line}{end}" for line in column)
        path.with_suffix(suffix).write_bytes(lines.encode())


def hub(folder: Path) -> None:
    for split, rows in SPLITS.items():
        write_parquet(folder / f"data/{split}-00000-of-00001.parquet", rows)
    (folder / "README.md").write_text("test and validation")
    (folder / ".gitattributes").write_text("*.parquet filter=lfs")
    (folder / ".git/lfs/test").mkdir(parents=True)
    (folder / ".git/lfs/test/test.parquet").write_bytes(b"an object")


def hub_with_parts(folder: Path) -> None:
    write_parquet(folder / "data/test-00000-of-00001.parquet", TEST)
    for number, row in enumerate(VALIDATION):
        write_parquet(folder / f"data/validation-{number}-of-3.parquet", [row])


def hub_conversion(folder: Path) -> None:
    for split, rows in SPLITS.items():
        write_parquet(folder / f"default/{split}/0000.parquet", rows)


def hub_cache(folder: Path) -> None:
    for split, rows in SPLITS.items():
        write_parquet(folder / f"blobs/{split[0]}0ffee", rows)
        link = folder / f"snapshots/0123abc/data/{split}-00000-of-00001.parquet"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder / f"blobs/{split[0]}0ffee")


def linked_folder(folder: Path) -> None:
    hub(folder / ".elsewhere")
    (folder / "data").symlink_to(folder / ".elsewhere/data")
    (folder / ".elsewhere/data/up").symlink_to(folder)


def json_lines(folder: Path) -> None:
    for split, rows in SPLITS.items():
        write_json_lines(folder / f"{split}.jsonl", rows)


def json_lines_below_a_folder_named_as_a_split(folder: Path) -> None:
    (folder / "test/dev").mkdir(parents=True)
    json_lines(folder / "test/dev")


def json_lines_named_json(folder: Path) -> None:
    write_json_lines(folder / "dev.json", VALIDATION)
    write_json_lines(folder / "test.json", TEST)
    (folder / "dataset_infos.json").write_text("{}")


def json_lines_packed(folder: Path) -> None:
    json_lines(folder)
    for split in SPLITS:
        content = (folder / f"{split}.jsonl").read_bytes()
        (folder / f"{split}.jsonl.gz").write_bytes(gzip.compress(content))
    (folder / "test.jsonl").unlink()  # the other one lies there packed and unpacked


def json_array(folder: Path) -> None:
    for split, rows in SPLITS.items():
        content = f"\n{json.dumps(records(rows), indent=2)}"
        (folder / f"{split}.json").write_text(content, "utf-8-sig")


def original(folder: Path) -> None:
    write_text(folder / "dev/dev.src", VALIDATION)
    write_text(folder / "test/test.src", TEST)
    (folder / "dev/dev.spellchecked.src").write_text("not read")
    (folder / "EACL_exp/m2converter").mkdir(parents=True)
    (folder / "EACL_exp/m2converter/test.ref.m2").write_text("not read")


def original_from_windows(folder: Path) -> None:
    write_text(folder / "dev/dev.src", VALIDATION, "\r\n")
    write_text(folder / "test/test.src", TEST, "\r\n")


LAYOUTS = [
    hub,
    hub_with_parts,
    hub_conversion,
    hub_cache,
    linked_folder,
    json_lines,
    json_lines_below_a_folder_named_as_a_split,
    json_lines_named_json,
    json_lines_packed,
    json_array,
    original,
    original_from_windows,
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_same_rows(layout: Callable[[Path], None], tmp_path: Path) -> None:
    layout(tmp_path)
    splits = find_splits(tmp_path)
    assert {name: list(read_split(files)) for name, files in splits.items()} == SPLITS


def test_parts_are_read_in_natural_order(tmp_path: Path) -> None:
    rows: Rows = [(f"sentence {number}", ["a"]) for number in range(12)]
    for number, row in enumerate(rows):
        write_parquet(tmp_path / f"validation-{number}-of-12.parquet", [row])
    write_parquet(tmp_path / "test.parquet", TEST)
    assert list(read_split(find_splits(tmp_path)["validation"])) == rows


def test_other_columns_are_ignored(tmp_path: Path) -> None:
    table = pa.table({"id": [1], "corrections": [["b"]], "sentence": ["a"]})
    for split in SPLITS:
        parquet.write_table(table, tmp_path / f"{split}.parquet")
    assert list(read_split(find_splits(tmp_path)["test"])) == [("a", ["b"])]


def test_rows_are_read_one_at_a_time(tmp_path: Path) -> None:
    json_lines(tmp_path)
    with (tmp_path / "test.jsonl").open("a") as file:
        file.write("half a li")
    rows = read_split(find_splits(tmp_path)["test"])
    assert [next(rows), next(rows)] == TEST
    with pytest.raises(UsageError):
        next(rows)


def problems_of(folder: Path) -> list[Problem]:
    with pytest.raises(UsageError) as caught:
        find_splits(folder)
    return caught.value.problems


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "jfleg2").mkdir()
    (problem,) = problems_of(tmp_path / "jfleg")
    assert problem.what == f"{tmp_path / 'jfleg'} does not exist"
    assert problem.why == f"{tmp_path} holds jfleg2"
    assert "--jfleg DIR" in problem.fix
    (problem,) = problems_of(tmp_path / "none/jfleg")
    assert problem.why == f"neither does {tmp_path / 'none'}"


def test_a_file_as_the_folder_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "validation.parquet", VALIDATION)
    (problem,) = problems_of(tmp_path / "validation.parquet")
    assert problem.what.endswith("validation.parquet is a file")


def test_an_empty_folder_is_refused_for_both_splits(tmp_path: Path) -> None:
    problems = problems_of(tmp_path)
    assert [problem.what for problem in problems] == [
        f"{tmp_path} does not contain the validation split of JFLEG",
        f"{tmp_path} does not contain the test split of JFLEG",
    ]
    assert all(problem.why.startswith("it holds nothing; ") for problem in problems)


def test_a_missing_split_is_reported_with_the_folders_content(tmp_path: Path) -> None:
    hub(tmp_path)
    (tmp_path / "data/test-00000-of-00001.parquet").unlink()
    (problem,) = problems_of(tmp_path)
    assert problem.what == f"{tmp_path} does not contain the test split of JFLEG"
    assert problem.why.startswith(
        "it holds README.md, data/validation-00000-of-00001.parquet; looked for test*.parquet"
    )


def test_a_clone_of_only_the_loading_script_is_refused(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"part{number}.py").touch()
    problems = problems_of(tmp_path)
    assert len(problems) == 2
    assert "it holds part0.py, part1.py, part2.py" in problems[0].why
    assert "part9.py and 2 more;" in problems[0].why


def test_a_split_that_exists_twice_is_refused(tmp_path: Path) -> None:
    hub(tmp_path)
    write_text(tmp_path / "dev/dev.src", VALIDATION)
    (problem,) = problems_of(tmp_path)
    assert problem.what == f"{tmp_path} contains the validation split of JFLEG more than once"
    assert "data/validation-00000-of-00001.parquet, dev/dev.src" in problem.why


def test_two_copies_of_the_hubs_folder_are_refused(tmp_path: Path) -> None:
    hub(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert len(problems_of(tmp_path)) == 2


def test_missing_references_are_refused(tmp_path: Path) -> None:
    original(tmp_path)
    (tmp_path / "dev/dev.ref1").unlink()
    (tmp_path / "dev/dev.ref3").unlink()
    (problem,) = problems_of(tmp_path)
    assert problem.what == f"{tmp_path / 'dev/dev.src'} has no dev.ref1, dev.ref3 next to it"
    assert "it holds dev.ref0, dev.ref2, dev.spellchecked.src, dev.src" in problem.why


def test_git_lfs_pointers_are_refused(tmp_path: Path) -> None:
    hub(tmp_path)
    for path in (tmp_path / "data").iterdir():
        path.write_text("version https://git-lfs.invalid/spec/v1\noid sha256:00\nsize 148000\n")
    problems = problems_of(tmp_path)
    assert len(problems) == 2
    assert "is a pointer of Git LFS" in problems[0].what
    assert f"git -C {tmp_path / 'data'} lfs pull" in problems[0].fix


def problem_in_test_split(folder: Path) -> Problem:
    with pytest.raises(UsageError) as caught:
        list(read_split(find_splits(folder)["test"]))
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("content", "what", "why"),
    [
        (
            '{"sentence": "a", "corr',
            "line 3 of {} is not JSON",
            "Unterminated string starting at: column 19",
        ),
        ('{"sentence": "a"}', "line 3 of {} has no 'corrections'", "its keys are sentence"),
        ('{"corrections": []}', "line 3 of {} has no 'sentence'", "its keys are corrections"),
        ("{}", "line 3 of {} has no 'sentence'", "its keys are none"),
        (
            '{"sentence": null, "corrections": []}',
            "'sentence' in line 3 of {} is not text",
            "it is None",
        ),
        (
            '{"sentence": "a", "corrections": "b"}',
            "'corrections' in line 3 of {} is not a list",
            "it is 'b'",
        ),
        (
            '{"sentence": "a", "corrections": ["b", 5]}',
            "one of 'corrections' in line 3 of {} is not text",
            "it is 5",
        ),
        ('["a", ["b"]]', "line 3 of {} is not a JSON object", "it is ['a', ['b']]"),
        ("[" * 100_000, "line 3 of {} is not a record", "it is nested too deeply"),
    ],
)
def test_an_unusable_json_line_is_refused(
    content: str, what: str, why: str, tmp_path: Path
) -> None:
    json_lines(tmp_path)
    with (tmp_path / "test.jsonl").open("a") as file:
        file.write(content)
    problem = problem_in_test_split(tmp_path)
    assert problem.what == what.format(tmp_path / "test.jsonl")
    assert problem.why.startswith(why)


def test_a_truncated_json_array_is_refused(tmp_path: Path) -> None:
    json_array(tmp_path)
    file = tmp_path / "test.json"
    file.write_text(file.read_text("utf-8-sig")[:-20])
    problem = problem_in_test_split(tmp_path)
    assert problem.what == f"{file} is not JSON"
    assert problem.why == "Expecting value: line 18 column 1"


def test_an_unusable_item_of_a_json_array_is_refused(tmp_path: Path) -> None:
    json_array(tmp_path)
    (tmp_path / "test.json").write_text('[{"sentence": "a", "corrections": ["b"]}, 5]')
    problem = problem_in_test_split(tmp_path)
    assert problem.what == f"item 2 of {tmp_path / 'test.json'} is not a JSON object"


def test_parquet_without_the_columns_is_refused(tmp_path: Path) -> None:
    hub(tmp_path)
    file = tmp_path / "data/test-00000-of-00001.parquet"
    parquet.write_table(pa.table({"sentence": ["a"], "correction": ["b"]}), file)
    problem = problem_in_test_split(tmp_path)
    assert problem.what == f"{file} has no column corrections"
    assert problem.why == "the columns found are sentence, correction"


def test_corrupt_parquet_is_refused(tmp_path: Path) -> None:
    hub(tmp_path)
    file = tmp_path / "data/test-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:100])
    problem = problem_in_test_split(tmp_path)
    assert problem.what == f"{file} cannot be read"


@pytest.mark.parametrize("suffix", [".src", ".ref2"])
def test_text_files_of_different_lengths_are_refused(suffix: str, tmp_path: Path) -> None:
    original(tmp_path)
    file = tmp_path / f"test/test{suffix}"
    file.write_text(file.read_text().splitlines()[0])
    problem = problem_in_test_split(tmp_path)
    assert problem.what == f"{file} ends before line 2"


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    original(tmp_path)
    file = tmp_path / "test/test.ref1"
    file.write_bytes(b"abc\nd\xffe\n")
    problem = problem_in_test_split(tmp_path)
    assert problem.what == f"byte 5 of {file}, in line 2, is not UTF-8"
    assert problem.why.startswith("it is 0xff")
