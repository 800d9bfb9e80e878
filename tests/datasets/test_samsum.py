"""SAMSum from the archive and from each layout of files gives the same samples."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import py7zr
import pyarrow as pa
import pytest
from pyarrow import parquet

from llama_recipes_local import configs
from llama_recipes_local.datasets import samsum
from llama_recipes_local.datasets.base import find_split
from llama_recipes_local.datasets.examples import Pair
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import Problem, UsageError
from llama_recipes_local.utils.dataset_utils import get_preprocessed_dataset

SAMSUM = {
    "train": [{"id": str(n), "dialogue": f"A: {n}\r\nB: ü", "summary": f"S{n}."} for n in range(3)],
    "val": [{"id": "8", "dialogue": "A: one\r\nB: two", "summary": "They count."}],
    "test": [{"id": "9", "dialogue": "A: no", "summary": "No."}],
}
LONG = {"train": "train", "val": "validation", "test": "test"}


def write_json(folder: Path, form: Callable[[Any], str] = json.dumps) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in SAMSUM.items():
        (folder / f"{name}.json").write_text(form(records), "utf-8")


def corpus(folder: Path) -> None:
    with py7zr.SevenZipFile(folder / "corpus.7z", "w") as archive:
        for name, records in SAMSUM.items():
            archive.writestr(json.dumps(records), f"{name}.json")
        archive.writestr("CC BY-NC-ND 4.0", "licence.txt")


def corpus_in_data(folder: Path) -> None:
    (folder / "data").mkdir()
    corpus(folder / "data")


def unpacked(folder: Path) -> None:
    write_json(folder)


def unpacked_in_data(folder: Path) -> None:
    write_json(folder / "data")


def by_column(records: list[dict[str, str]]) -> str:
    return json.dumps({key: [record[key] for record in records] for key in records[0]})


def columns(folder: Path) -> None:
    write_json(folder, by_column)


def parquet_parts(folder: Path) -> None:
    (folder / "data").mkdir()
    for name, rows in SAMSUM.items():
        for part, some in enumerate((rows[:1], rows[1:])):
            if some:
                path = folder / "data" / f"{LONG[name]}-0000{part}-of-00002.parquet"
                parquet.write_table(pa.Table.from_pylist(some), path)


def json_lines(folder: Path) -> None:
    for name, rows in SAMSUM.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def csv_files(folder: Path) -> None:
    for name, rows in SAMSUM.items():
        with (folder / f"samsum-{LONG[name]}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["id", "dialogue", "summary"])
            writer.writeheader()
            writer.writerows(rows)


def packed_beside_unpacked(folder: Path) -> None:
    unpacked(folder)
    for path in folder.glob("*.json"):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(b"not read"))


def unpacked_beside_the_archive(folder: Path) -> None:
    unpacked(folder)
    (folder / "corpus.7z").write_bytes(b"not read")


def unpacked_beside_a_table(folder: Path) -> None:
    unpacked(folder)
    for name in LONG.values():
        (folder / f"{name}.csv").write_text("not read")


def corpus_beside_one_in_data(folder: Path) -> None:
    corpus_in_data(folder)
    (folder / "corpus.7z").write_bytes(b"not read")


LAYOUTS = [
    corpus_beside_one_in_data,
    unpacked_beside_a_table,
    corpus,
    corpus_in_data,
    unpacked,
    unpacked_in_data,
    columns,
    parquet_parts,
    json_lines,
    csv_files,
    packed_beside_unpacked,
    unpacked_beside_the_archive,
]


def pairs(config: Any, part: Any) -> list[Any]:
    split = find_split(DATASETS["samsum_dataset"], config, part)
    return [split.formatter(record, None) for record in split.records()]  # type: ignore[arg-type]


def expected(name: str) -> list[Pair]:
    return [
        Pair(
            f"Summarize this dialog:\n{row['dialogue']}\n---\nSummary:\n",
            row["summary"],
            begins=True,
        )
        for row in SAMSUM[name]
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_same_pairs(layout: Callable[[Path], None], tmp_path: Path) -> None:
    layout(tmp_path)
    config = configs.samsum_dataset(data_path=str(tmp_path))
    assert pairs(config, "train") == expected("train")
    assert pairs(config, "test") == expected("val")
    config.test_split = "test"
    assert pairs(config, "test") == expected("test")


def test_the_archive_may_be_named_itself(tmp_path: Path) -> None:
    corpus(tmp_path)
    config = configs.samsum_dataset(data_path=str(tmp_path / "corpus.7z"))
    assert pairs(config, "test") == expected("val")
    split = find_split(DATASETS["samsum_dataset"], config, "test")
    assert (split.files, split.part) == ((tmp_path / "corpus.7z",), "val.json")


def test_files_of_data_come_first(tmp_path: Path) -> None:
    write_json(tmp_path, lambda records: "[]")
    unpacked_in_data(tmp_path)
    assert pairs(configs.samsum_dataset(data_path=str(tmp_path)), "test") == expected("val")


def test_a_sample_and_what_is_printed(
    tmp_path: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus(tmp_path)
    config = configs.samsum_dataset(data_path=str(tmp_path))
    (sample,) = get_preprocessed_dataset(tokenizer, config, "test")
    (pair,) = expected("val")
    text = f"<s>{pair.prompt}{pair.response}</s>"
    assert tokenizer.decode(sample["input_ids"]) == text
    labels = [label for label in sample["labels"] if label != -100]
    assert tokenizer.decode(labels) == pair.response + "</s>"
    read = f"val.json in {tmp_path / 'corpus.7z'}"
    assert f"--> samsum_dataset: validation is read from {read}" in capsys.readouterr().out


def problem_of(path: Path) -> Problem:
    with pytest.raises(UsageError) as caught:
        pairs(configs.samsum_dataset(data_path=str(path)), "train")
    (problem,) = caught.value.problems
    return problem


def test_what_is_missing_is_reported_with_what_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    problem = problem_of(tmp_path)
    assert problem.what == f"no train split of SAMSum in {tmp_path}"
    assert f"searched in {tmp_path} and {tmp_path / 'data'}; it holds README.md" in problem.why
    for layout in ("corpus.7z", "train.json", "parquet", "csv", "validation*"):
        assert layout in problem.why
    assert "--samsum_dataset.data_path=DIR" in problem.fix
    assert "of which none exists" in problem_of(tmp_path / "none").why


def test_parts_are_read_in_their_order_and_nothing_else(tmp_path: Path) -> None:
    for name in (
        "Train-10.jsonl",
        "Train-2.jsonl",
        ".train-1.jsonl",
        "train-3.md",
        "trainer.jsonl",
    ):
        (tmp_path / name).write_text(json.dumps({"dialogue": name, "summary": "s"}))
    found = samsum.find(configs.samsum_dataset(data_path=str(tmp_path)), "train")
    assert [source.name for source in found] == ["Train-2.jsonl", "Train-10.jsonl"]


def test_a_split_that_exists_twice(tmp_path: Path) -> None:
    json_lines(tmp_path)
    (tmp_path / "train.csv").write_text("dialogue,summary\na,b\n")
    problem = problem_of(tmp_path)
    assert problem.what == "the train split of SAMSum exists more than once"
    assert str(tmp_path / "train.csv") in problem.why and "train.jsonl" in problem.why


def test_a_record_without_a_summary(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text('[{"dialogue": "a", "text": "b"}]')
    problem = problem_of(tmp_path)
    assert problem.what == f"item 1 of {tmp_path / 'train.json'} has no 'summary'"
    assert problem.why == "its keys are dialogue, text"
