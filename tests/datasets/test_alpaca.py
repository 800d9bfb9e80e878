"""Alpaca's samples are upstream's, from each layout; its parts are upstream's too."""

import json
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import configs
from llama_recipes_local._upstream import load
from llama_recipes_local.datasets import alpaca, guanaco, samsum
from llama_recipes_local.datasets.base import find_split
from llama_recipes_local.datasets.examples import Continuation
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import Problem, UsageError
from llama_recipes_local.utils.dataset_utils import get_preprocessed_dataset

RECORDS = [
    {
        "instruction": f"Say {number}.",
        "input": "" if number % 2 else "loudly {twice}",
        "output": f"{number}!",
    }
    for number in range(98)
] + [{"instruction": "Wait.", "output": "Yes."}]


def written(folder: Path, name: str = "alpaca_data.json") -> Any:
    """The configuration of a file with the records, in the form that its name tells."""
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), "utf-8")
    else:
        path.write_text(json.dumps(RECORDS), "utf-8")
    return configs.alpaca_dataset(data_path=str(path))


@pytest.mark.parametrize(("split", "count"), [("train", 95), ("test", 4)])
def test_samples_are_upstreams(split: str, count: int, tmp_path: Path, tokenizer: Any) -> None:
    config = written(tmp_path)
    ours = get_preprocessed_dataset(tokenizer, config, split)
    partition = config.train_split if split == "train" else config.test_split
    theirs = load("datasets.alpaca_dataset").InstructionDataset(config, tokenizer, partition)
    assert len(ours) == len(theirs) == count
    assert list(ours) == [theirs[index] for index in range(count)]


def examples(config: Any, part: Any) -> list[Any]:
    split = find_split(DATASETS["alpaca_dataset"], config, part)
    return [split.formatter(record, None) for record in split.records()]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["alpaca_data.json", "alpaca_data.jsonl"])
def test_each_layout_gives_the_same_examples(name: str, tmp_path: Path) -> None:
    config = written(tmp_path, name)
    by_folder = configs.alpaca_dataset(data_path=str(tmp_path))
    for part, first in (("train", 4), ("test", 0)):
        found = examples(config, part)
        assert found == examples(by_folder, part)
        assert "### Instruction:\n" + RECORDS[first]["instruction"] in found[0].prompt
        assert "### Input:\nloudly {twice}" in found[0].prompt
        assert found[0].response == RECORDS[first]["output"]


def test_a_split_has_its_files_and_part(tmp_path: Path) -> None:
    config = written(tmp_path)
    train, test = (
        find_split(DATASETS["alpaca_dataset"], config, part) for part in ("train", "test")
    )
    assert train.files == test.files == (tmp_path / "alpaca_data.json",)
    assert (train.part, test.part) == ("all but the first 5%", "the first 5%")
    assert "### Response:" in repr(train.formatter)


def test_a_changed_file_is_counted_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    config = configs.alpaca_dataset(data_path=str(path))
    for count in (20, 200):
        record = {"instruction": "a", "output": "b"}
        path.write_text(f"{json.dumps(record)}\n" * count)
        assert len(examples(config, "test")) == count // 20
        assert len(examples(config, "train")) == count - count // 20


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (19, 1), (39, 1), (40, 2), (52002, 2600)])
def test_how_many_are_held_out(count: int, expected: int) -> None:
    assert alpaca.held_out(count) == expected


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": " ", "input": "a", "output": "b"},
        {"instruction": "a", "input": "", "output": ""},
        {"instruction": "a", "output": None},
    ],
)
def test_blank_records(record: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([record]))
    assert examples(configs.alpaca_dataset(data_path=str(tmp_path)), "test") == [None]


def test_an_input_of_null_is_none(tmp_path: Path) -> None:
    record = {"instruction": "a", "input": None, "output": "b"}
    (tmp_path / "a.json").write_text(json.dumps([record]))
    (tmp_path / ".b.json").write_text("hidden, so not read")
    (example,) = examples(configs.alpaca_dataset(data_path=str(tmp_path)), "test")
    assert isinstance(example, Continuation) and "### Input" not in example.prompt


def problem_of(path: Path) -> Problem:
    with pytest.raises(UsageError) as caught:
        examples(configs.alpaca_dataset(data_path=str(path)), "train")
    (problem,) = caught.value.problems
    return problem


def test_what_is_wrong_with_the_place(tmp_path: Path) -> None:
    assert problem_of(tmp_path / "no.json").what == f"{tmp_path / 'no.json'} does not exist"
    empty = problem_of(tmp_path)
    assert empty.what == f"no Alpaca data in {tmp_path}"
    assert "alpaca_data.jsonl" in empty.why
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("[]")
    assert problem_of(tmp_path).what == f"{tmp_path} holds several data files"
    written(tmp_path)
    assert len(examples(configs.alpaca_dataset(data_path=str(tmp_path)), "train")) == 95


def test_a_record_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = '{"instruction": "a", "output": "b"}\n'
    path.write_text(good * 2 + '{"instruction": "a"}')
    assert problem_of(path).what == f"line 3 of {path} has no 'output'"
    path.write_text(good * 2 + '{"instruction": "a", "output": 5}')
    assert problem_of(path).what == f"'output' in line 3 of {path} is not text"
    path.write_text(good * 2 + r'{"instruction": "a", "output": "\ud83d"}')
    assert problem_of(path).what == f"'output' in line 3 of {path} is not Unicode text"


@pytest.mark.parametrize(
    ("formatter", "record"),
    [
        (alpaca.AlpacaFormatter("{instruction} {input}", "{instruction}"), RECORDS[1]),
        (guanaco.TurnFormatter(), {"text": "### Human: a### Assistant: b"}),
        (samsum.FORMATTER, {"id": "1", "dialogue": "a", "summary": "b"}),
    ],
    ids=["alpaca", "guanaco", "samsum"],
)
def test_columns_that_are_left_out_are_named(formatter: Any, record: dict[str, Any]) -> None:
    more = {"history": [["a", "b"]], "system": "Be short.", "weight": 0, "tools": [], "note": " "}
    assert formatter(("row 1", record)).notes == ()
    found = formatter(("row 1", record | more)).notes
    assert found == ("column 'history'", "column 'system'", "column 'weight'")
