"""Each data set's check looks at the files that its loader reads, and names its flags."""

import json
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import configs, paths
from llama_recipes_local.datasets import DATASET_PREPROC, readers
from llama_recipes_local.datasets.checks import CHECKS


def problems_of(config: Any) -> list[str]:
    return [str(problem) for problem in CHECKS[config.dataset](config)]


def test_every_data_set_has_a_check() -> None:
    assert set(CHECKS) == set(DATASET_PREPROC)


def test_grammar_checks_both_files(grammar_data: Path) -> None:
    paths.set_data_root(str(grammar_data))
    assert problems_of(configs.grammar_dataset()) == []
    first, second = problems_of(configs.grammar_dataset("grammar_dataset", "a.csv", "b.csv"))
    assert f"{grammar_data / 'a.csv'} is no file" in first
    assert "--grammar_dataset.train_split=FILE" in first
    assert "--grammar_dataset.test_split=FILE" in second


def test_samsum_checks_both_splits(tmp_path: Path) -> None:
    config = configs.samsum_dataset(data_path=str(tmp_path))
    (tmp_path / "train.json").write_text(json.dumps([{"dialogue": "a", "summary": "b"}]))
    (problem,) = problems_of(config)
    assert f"{tmp_path / 'val.json'} is no file" in problem
    assert "--samsum_dataset.data_path=FOLDER" in problem
    (tmp_path / "val.json").write_text(json.dumps([{"dialogue": "a", "text": "b"}]))
    (problem,) = problems_of(config)
    assert f"record 0 of {tmp_path / 'val.json'} lacks one of the keys dialogue, summary" in problem


def test_alpaca_checks_its_file(tmp_path: Path) -> None:
    file = tmp_path / "alpaca.json"
    config = configs.alpaca_dataset(data_path=str(file))
    file.write_text(json.dumps([{"instruction": "a", "output": "b"}] * 20))
    assert problems_of(config) == []
    file.write_text(json.dumps([{"instruction": "a"}] * 20))
    (problem,) = problems_of(config)
    assert "lacks one of the keys instruction, output" in problem
    assert "--alpaca_dataset.data_path=FILE" in problem


def test_toxicchat_checks_both_splits(tmp_path: Path) -> None:
    config = configs.llamaguard_toxicchat_dataset(data_path=str(tmp_path))
    assert len(problems_of(config)) == 2
    header = "user_input,model_output,toxicity,openai_moderation"
    for split in ("train", "test"):
        file = tmp_path / f"toxic-chat_annotation_{split}.csv"
        file.write_text(f"{header}\nhi,hello,0,[]\n")
    assert problems_of(config) == []


@pytest.mark.parametrize(
    ("source", "function"),
    [
        ("def get_custom_dataset(c, t, s): ...", ""),
        ("def mine(c, t, s): ...", ":mine"),
        ("mine = lambda c, t, s: []", ":mine"),
        ("from json import loads as mine", ":mine"),
        ("if True:\n    def mine(c, t, s): ...", ":mine"),
    ],
)
def test_a_custom_function_is_found(source: str, function: str, tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(source)
    assert problems_of(configs.custom_dataset(file=f"{tmp_path}/data.py{function}")) == []


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("data.py", None, "{folder}/data.py is no file"),
        ("data.csv", "", "{folder}/data.csv is no .py file"),
        ("data.py", "def f(:", "{folder}/data.py is not Python"),
        ("data.py", "x = 1", "{folder}/data.py defines no function get_custom_dataset"),
        ("data.py:mine", "def other(): ...", "its functions are other"),
        ("data.py:mine", "'mine'", "{folder}/data.py defines no function mine"),
    ],
)
def test_what_is_wrong_with_a_custom_file(
    name: str, source: str | None, expected: str, tmp_path: Path
) -> None:
    if source is not None:
        (tmp_path / name.partition(":")[0]).write_text(source)
    (problem,) = problems_of(configs.custom_dataset(file=f"{tmp_path}/{name}"))
    assert expected.format(folder=tmp_path) in problem


def test_a_custom_file_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text("raise SystemExit\ndef get_custom_dataset(): ...")
    assert problems_of(configs.custom_dataset(file=f"{tmp_path}/data.py")) == []


def test_alpaca_needs_a_record_to_train_on(tmp_path: Path) -> None:
    file = tmp_path / "alpaca.json"
    config = configs.alpaca_dataset(data_path=str(file))
    record = {"instruction": "Say hello.", "output": "Hello."}
    file.write_text(json.dumps([record]), "utf-8")
    (problem,) = CHECKS["alpaca_dataset"](config)
    assert problem.what == f"{file} has one record"
    file.write_text(json.dumps([record, record]), "utf-8")
    assert CHECKS["alpaca_dataset"](config) == []


def test_a_csv_of_blank_rows_is_told(tmp_path: Path) -> None:
    file = tmp_path / "blank.csv"
    file.write_text("input,target\na,\n ,b\n", "utf-8")
    (problem,) = readers.check_csv(file, ("input", "target"), "--flag")
    assert problem.what == f"{file} has no row with input and target"
    file.write_text("input,target\na,\n ,b\nc,d\n", "utf-8")
    assert readers.check_csv(file, ("input", "target"), "--flag") == []
