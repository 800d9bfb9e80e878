"""Each data set's check looks at the files that its loader reads, and names its flags."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import configs
from llama_recipes_local.datasets.file_checks import check_files
from llama_recipes_local.datasets.registry import DATASETS


def problems_of(config: Any) -> list[str]:
    return [str(problem) for problem in check_files(DATASETS[config.dataset], config)]


def test_grammar_checks_both_files(grammar_data: Path) -> None:
    config = configs.grammar_dataset(data_root=str(grammar_data))
    assert problems_of(config) == []
    first, second = problems_of(replace(config, train_split="a.csv", test_split="b.csv"))
    assert f"{grammar_data / 'a.csv'} does not exist" in first
    assert "llama-recipes-local prepare grammar" in first
    assert "--grammar_dataset.train_split=FILE" in first
    assert "--grammar_dataset.test_split=FILE" in second


def test_a_folder_that_is_named_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.csv").touch()
    config = configs.grammar_dataset("grammar_dataset", str(tmp_path), str(tmp_path))
    (problem,) = problems_of(config)
    assert f"{tmp_path} holds below\n" in problem
    assert problem.endswith("fix: name a file: --grammar_dataset.train_split=FILE")


def test_the_first_usable_record_is_formatted(tmp_path: Path) -> None:
    config = configs.samsum_dataset(data_path=str(tmp_path))
    good = {"dialogue": "a", "summary": "b"}
    blank = {"dialogue": "a", "summary": " "}
    (tmp_path / "train.json").write_text(json.dumps([blank, good]))
    (tmp_path / "val.json").write_text(json.dumps([blank, {"dialogue": "a", "text": "b"}]))
    (problem,) = problems_of(config)
    assert f"item 2 of {tmp_path / 'val.json'} has no 'summary'" in problem
    assert "--samsum_dataset.data_path=DIR" in problem


def test_a_file_without_the_columns_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("source,corrected\na,b\n")
    file = str(tmp_path / "a.csv")
    (problem,) = problems_of(configs.grammar_dataset("grammar_dataset", file, file))
    assert f"{file} has no column input, target" in problem
    (problem,) = problems_of(configs.local_dataset(data_path=file))
    assert f"line 2 of {file} is not a record" in problem
    assert "--local_dataset.data_path=PATH" in problem


def test_files_of_blank_records_are_reported(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("input,target\na,\n ,b\n", "utf-8")
    names = [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    for problem, name in zip(
        problems_of(configs.grammar_dataset("grammar_dataset", *names)), names, strict=True
    ):
        assert f"nothing in {name} is for the " in problem
        assert "one side is blank" in problem


def test_what_is_wrong_with_both_parts_is_reported_once(tmp_path: Path) -> None:
    config = configs.alpaca_dataset(data_path=str(tmp_path / "none.json"))
    (problem,) = problems_of(config)
    assert f"{tmp_path / 'none.json'} does not exist" in problem
    assert problem.count("--alpaca_dataset.data_path=FILE") == 1


def test_guanaco_checks_both_files(tmp_path: Path) -> None:
    config = configs.guanaco_dataset(data_path=str(tmp_path))
    first, second = problems_of(config)
    assert "openassistant_best_replies_train.jsonl" in first
    assert "openassistant_best_replies_eval.jsonl" in second
    for name in ("train", "eval"):
        file = tmp_path / f"openassistant_best_replies_{name}.jsonl"
        file.write_text('{"text": "### Human: a### Assistant: b"}\n')
    assert problems_of(config) == []


def test_alpaca_needs_a_record_to_train_on(tmp_path: Path) -> None:
    file = tmp_path / "alpaca.json"
    config = configs.alpaca_dataset(data_path=str(file))
    record = {"instruction": "Say hello.", "output": "Hello."}
    file.write_text(json.dumps([record]), "utf-8")
    (problem,) = problems_of(config)
    assert f"nothing in {file} is for the train part" in problem
    assert "all but the first 5%" in problem
    file.write_text(json.dumps([record, record]), "utf-8")
    assert problems_of(config) == []


def test_toxicchat_checks_both_parts(tmp_path: Path) -> None:
    config = configs.llamaguard_toxicchat_dataset(data_path=str(tmp_path))
    assert len(problems_of(config)) == 2
    header = "user_input,model_output,toxicity,openai_moderation"
    for split in ("train", "test"):
        file = tmp_path / f"toxic-chat_annotation_{split}.csv"
        file.write_text(f"{header}\nhi,hello,0,[]\n")
    assert problems_of(config) == []
    file.write_text(f"{header}\nhi,hello,no,[]\n")
    (problem,) = problems_of(config)
    assert "'toxicity' in line 2" in problem
    assert "--llamaguard_toxicchat_dataset.data_path=DIR" in problem


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
        ("data.py", None, "{folder}/data.py does not exist"),
        ("data.csv", "", "{folder}/data.csv is not a .py file"),
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


def test_each_check_prints_once_how_data_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train", "val", "more"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}))
    for _ in range(2):
        assert problems_of(configs.local_dataset(data_path=str(tmp_path))) == []
        assert capsys.readouterr().out.splitlines() == [
            f"--> skipped files, whose names are of no split: {tmp_path / 'more.jsonl'}",
            f"--> train: text (text) from {tmp_path / 'train.jsonl'}, labels assistant",
            f"--> validation: text (text) from {tmp_path / 'val.jsonl'}, labels assistant",
        ]


def test_what_a_stream_leaves_out_is_named_by_its_first_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"text": "a", "id": 1}))
    config = configs.local_dataset(data_path=str(file), validation_path=str(file), streaming=True)
    assert problems_of(config) == []
    assert "--> not as in the first record: column 'id'\n" in capsys.readouterr().out
