"""A user's own files: found, and divided into splits."""

import json
import os
import pickle
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.local_rows import configured, refused, rows, write

from llama_recipes_local.configs.datasets import local_dataset
from llama_recipes_local.datasets import local
from llama_recipes_local.datasets.local import split as local_split
from llama_recipes_local.errors import UsageError


def test_rows_are_held_out_of_one_file(tmp_path: Path) -> None:
    texts = [f"row {number}" for number in range(45)]
    file = write(tmp_path / "rows.jsonl", *({"text": text} for text in texts))
    config = local_dataset(data_path=file)
    held_out = [texts[0], texts[20], texts[40]]
    assert rows(config, "validation") == held_out
    assert rows(config, "train") == [text for text in texts if text not in held_out]
    tenths = replace(config, validation_fraction=0.1)
    assert rows(tenths, "validation") == texts[::10]
    assert set(rows(tenths, "train")) == set(texts) - set(texts[::10])
    splits = [local_split(each, part) for each in (config, tenths) for part in ("train", "test")]
    assert [split.part for split in splits] == [
        "all but 1 record in 20",
        "1 record in 20",
        "all but 1 record in 10",
        "1 record in 10",
    ]
    assert "all rows but the first of each 20" in splits[0].notes[0]
    assert "of the rows, the first of each 10" in splits[3].notes[0]


def test_a_single_row_cannot_be_held_out_and_trained(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", {"text": "a"})
    problem = refused(local_dataset(data_path=file))
    assert problem.what == f"{file} has one record"
    assert "a folder of train.jsonl and validation.jsonl" in problem.fix  # a mixture takes it too
    write(tmp_path / "rows.jsonl", {"unknown": "a"})
    assert "is not a record" in refused(local_dataset(data_path=file)).what
    write(tmp_path / "rows.jsonl", {"text": "a"}, {"text": "b"})
    config = local_dataset(data_path=file)
    assert (rows(config, "train"), rows(config, "validation")) == (["b"], ["a"])


@pytest.mark.parametrize(
    ("names", "training", "validation"),
    [
        (["train.jsonl", "val.jsonl"], ["train.jsonl"], ["val.jsonl"]),
        (["gtrain_10k.jsonl", "my-dev.jsonl"], ["gtrain_10k.jsonl"], ["my-dev.jsonl"]),
        (["train.jsonl", "test.jsonl"], ["train.jsonl"], ["test.jsonl"]),
        (["a/train.jsonl", "a/eval.jsonl", "a/test.jsonl"], ["a/train.jsonl"], ["a/eval.jsonl"]),
        (
            ["train/2.jsonl", "train/10.jsonl", "validation/1.jsonl"],
            ["train/2.jsonl", "train/10.jsonl"],
            ["validation/1.jsonl"],
        ),
        (
            ["train-0-of-2.jsonl", "train-1-of-2.jsonl", "validation-0-of-1.jsonl", "more.jsonl"],
            ["train-0-of-2.jsonl", "train-1-of-2.jsonl"],
            ["validation-0-of-1.jsonl"],
        ),
    ],
)
def test_files_of_a_folder_are_divided_by_name(
    names: list[str], training: list[str], validation: list[str], tmp_path: Path
) -> None:
    # the folder's own name says nothing of the files in it
    folder = tmp_path / "train-and-test"
    for name in names:
        write(folder / name, {"text": name})
    config = local_dataset(data_path=str(folder))
    assert rows(config, "train") == training
    assert rows(config, "validation") == validation
    assert local_split(config, "train").files == tuple(folder / name for name in training)


@pytest.mark.parametrize(
    "names",
    [
        ["a.jsonl", "b.jsonl"],
        ["train.jsonl"],
        ["latest.jsonl", "constrained.jsonl"],
        ["train-and-test.jsonl", "val.jsonl"],
        ["train/a.jsonl", "train/val.jsonl"],
    ],
)
def test_rows_are_held_out_if_no_name_shows_a_split(names: list[str], tmp_path: Path) -> None:
    for name in names:
        write(tmp_path / name, *({"text": f"{name} {number}"} for number in range(15)))
    config = local_dataset(data_path=str(tmp_path))
    every = [f"{name} {number}" for name in sorted(names) for number in range(15)]
    assert rows(config, "validation") == every[::20]
    assert sorted(rows(config, "train")) == sorted(set(every) - set(every[::20]))


def test_files_of_no_split_are_reported(tmp_path: Path) -> None:
    for name in ("train", "val", "more"):
        write(tmp_path / f"{name}.jsonl", {"text": name})
    config = local_dataset(data_path=str(tmp_path))
    assert rows(config, "train") == ["train"]
    note, _ = local_split(config, "train").notes
    assert note == f"--> skipped files, whose names are of no split: {tmp_path / 'more.jsonl'}"


def test_named_validation_data_is_not_trained_on(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.jsonl", {"text": name})
    config = local_dataset(data_path=str(tmp_path), validation_path=str(tmp_path / "[bx].jsonl"))
    assert rows(config, "train") == ["a", "c"]
    assert rows(config, "validation") == ["b"]


def test_paths_start_from_the_data_root(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "part10.jsonl", {"text": "10"})
    write(tmp_path / "mine" / "part2.jsonl", {"text": "2"})
    (tmp_path / "mine" / "part2.jsonl.gz").write_bytes(b"its packed twin is not read")
    for pattern in ("mine", "mine/part*", "*/*.jsonl", "**/*.jsonl"):
        config = local_dataset(
            data_path=pattern, validation_path="mine/part2.jsonl", data_root=str(tmp_path)
        )
        assert rows(replace(config, validation_path=pattern), "train") == ["2", "10"]
        assert rows(config, "train") == ["10"]


def test_what_is_missing_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", {"text": "a"})
    problem = refused(local_dataset(data_path=str(tmp_path / "row.jsonl")))
    assert problem.what == f"{tmp_path / 'row.jsonl'} does not exist"
    assert "rows.jsonl" in problem.why and "--local_dataset.data_path=PATH" in problem.fix
    problem = refused(local_dataset(data_path=str(tmp_path / "*.csv")))
    assert problem.what == f"no file matches {tmp_path / '*.csv'}"
    config = local_dataset(data_path=str(tmp_path), validation_path=str(tmp_path / "no"))
    assert "--local_dataset.validation_path=PATH" in refused(config, part="validation").fix
    (tmp_path / "empty").mkdir()
    problem = refused(local_dataset(data_path=str(tmp_path / "empty")))
    assert problem.what == f"{tmp_path / 'empty'} contains no supported data file"
    os.mkfifo(tmp_path / "pipe")
    assert "only be read once" in refused(local_dataset(data_path=str(tmp_path / "pipe"))).why


def test_half_a_line_is_reported_with_its_number(tmp_path: Path, tokenizer: Any) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n{"text": "b', "utf-8")
    assert f"line 2 of {file} is not JSON" in refused(configured(file), tokenizer).what
    file.write_text('{"text": "a"}\n{"text": "b"}\n{"text": "c', "utf-8")
    assert local_split(configured(file), "train").files == (file,)  # no further than it needs
    assert f"line 3 of {file} is not JSON" in refused(configured(file), tokenizer).what


def test_a_split_notes_how_it_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", {"prompt": "a", "completion": "b"})
    assert local_split(configured(file), "train").notes == (
        f"--> train: prompt (prompt, completion) from {file}, labels assistant",
    )


def test_a_split_can_be_sent_to_another_process(tmp_path: Path, tokenizer: Any) -> None:
    file = write(tmp_path / "rows.jsonl", {"text": "a"}, {"text": "b"})
    split = local_split(local_dataset(data_path=file), "train")
    sent = pickle.loads(pickle.dumps(split))
    assert list(sent.records()) == list(split.records()) == list(split.records())
    assert repr(sent.formatter) == repr(split.formatter)


def test_the_splits_of_many_files_are_found_quickly() -> None:
    files = [
        Path(f"/data/{split}/{number}.csv") for split in ("train", "dev") for number in range(5000)
    ]
    begun = time.process_time()
    assert local._kinds(files) == ["train"] * 5000 + ["validation"] * 5000
    assert time.process_time() - begun < 5  # not with the square of their number: minutes


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("", "--local_dataset.data_path is empty"),
        (" ", "--local_dataset.data_path is empty"),
        ("/", "/ is the root of the file system"),
        ("https://host/rows.jsonl", "https://host/rows.jsonl is an address, not a file"),
        ("s3://bucket/rows", "s3://bucket/rows is an address, not a file"),
        ("x" * 300, f"--local_dataset.data_path {'x' * 40}... cannot be a path"),
    ],
)
def test_paths_that_no_data_has(path: str, what: str) -> None:
    assert refused(local_dataset(data_path=path)).what == what


@pytest.mark.parametrize(
    ("texts", "documents", "expected"),
    [
        (["a\nb\n\nc\n"], "paragraph", ["a\nb", "c"]),
        (["a\nb\n"], "line", ["a", "b"]),
        (["a\n\nb\n", "c\n"], "file", ["a\n\nb", "c"]),
    ],
)
def test_documents_of_plain_text_are_chosen_and_said(
    texts: list[str], documents: str, expected: list[str], tmp_path: Path, tokenizer: Any
) -> None:
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text)
    config = configured(tmp_path)
    assert rows(config, "train") == expected
    note = f"--> plain text: a document is a {documents}; --local_dataset.documents=NAME"
    split = local_split(config, "train")
    assert note in split.notes
    assert split.part.endswith(f", a {documents} each")
    assert rows(replace(config, documents="line"), "train")[0] == "a"


def test_what_is_not_read_in_a_folder_is_said(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", {"text": "a"})
    for name in ("dataset_info.json", "README.md", "other.xlsx"):
        (tmp_path / name).write_text("{}")
    notes = local_split(configured(tmp_path), "train").notes
    skipped = f"--> skipped in {tmp_path}: README.md, dataset_info.json, other.xlsx;"
    assert notes[0].startswith(skipped)


def test_another_separator_is_said(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("Prompt;Completion\na;b\n")
    split = local_split(configured(tmp_path / "rows.csv"), "train")
    assert split.notes[0].endswith("rows.csv: cells are separated by ';', as its header shows")
    assert [values for _, values in split.records()] == [{"Prompt": "a", "Completion": "b"}]


@pytest.mark.parametrize("second", ["test", "validation", "Dev"])
def test_a_json_file_of_splits_is_read_as_them(second: str, tmp_path: Path) -> None:
    rows = [{"prompt": word, "completion": word} for word in "abc"]
    file = tmp_path / "all.json"
    file.write_text(json.dumps({"train": rows[:2], second: rows[2:]}, indent=1))
    config = configured(file)
    assert [record["prompt"] for _, record in local_split(config, "train").records()] == [
        "a",
        "b",
    ]
    parts = [local_split(config, part) for part in ("train", "validation")]
    assert f"from 'train' in {file}" in parts[0].notes[0]
    assert list(parts[1].records()) == [(f"item 1 of {second!r} in {file}", rows[2])]
    assert parts[0].part != parts[1].part


def test_a_json_file_of_splits_without_one_to_validate_on_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "all.json"
    rows = [{"prompt": "a", "completion": "b"}]
    file.write_text(json.dumps({"val": rows, "test": rows}))
    with pytest.raises(UsageError, match="holds several splits: val, test"):
        local_split(configured(file), "train")
    # a column of this name is no split
    file.write_text(json.dumps({"train": ["a"] * 3, "text": ["b"] * 3}))
    assert "text (text)" in local_split(configured(file), "train").notes[0]
