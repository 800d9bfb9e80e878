"""Samples from local files are what upstream makes of the same rows."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llama_recipes_local import configs, datasets, paths
from llama_recipes_local._upstream import load
from llama_recipes_local.utils.dataset_utils import (
    get_custom_data_collator,
    get_preprocessed_dataset,
)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("split", "file", "count"),
    [("train", "gtrain_10k.csv", 60), ("test", "grammar_validation.csv", 20)],
)
def test_grammar_samples_are_upstreams(
    split: str, file: str, count: int, grammar_data: Path, tokenizer: Any
) -> None:
    paths.set_data_root(str(grammar_data))
    ours = get_preprocessed_dataset(tokenizer, configs.grammar_dataset(), split)
    theirs = load("datasets.grammar_dataset.grammar_dataset").grammar
    upstream = SimpleNamespace(tokenizer=tokenizer, print_text=False)
    rows = rows_of(grammar_data / "datasets" / "grammar" / file)
    assert len(ours) == len(rows) == count
    for sample, row in zip(ours, rows, strict=True):
        assert sample == theirs.convert_to_features(upstream, row)


def test_grammar_labels_are_the_correction_alone(grammar_data: Path, tokenizer: Any) -> None:
    paths.set_data_root(str(grammar_data))
    (first, *_) = get_preprocessed_dataset(tokenizer, configs.grammar_dataset())
    (row, *_) = rows_of(grammar_data / "datasets/grammar/gtrain_10k.csv")
    labels = [label for label in first["labels"] if label != -100]
    assert tokenizer.decode(labels) == row["target"] + "</s>"
    text = tokenizer.decode(first["input_ids"])
    prompt = f"<s>Correct this to standard English: {row['input']}\n---\nCorrected: "
    assert text == prompt + row["target"] + "</s>"


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["no-BOM", "BOM"])
def test_blank_rows_are_left_out_and_counted(
    mark: str, tmp_path: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.csv"
    lines = ["input,target", "a b,A b.", ",A.", "a,", "  ,A.", "a,  ", "short", "é ü,É ü."]
    file.write_text(mark + "\n".join(lines) + "\n", encoding="utf-8")
    samples = datasets.get_grammar_dataset(configs.grammar_dataset(), tokenizer, str(file))
    assert [tokenizer.decode(sample["input_ids"]).split("English: ")[1] for sample in samples] == [
        "a b\n---\nCorrected: A b.</s>",
        "é ü\n---\nCorrected: É ü.</s>",
    ]
    assert f"--> 5 rows of {file} are blank and left out" in capsys.readouterr().out


def test_nothing_is_said_where_no_row_is_blank(
    grammar_data: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    paths.set_data_root(str(grammar_data))
    get_preprocessed_dataset(tokenizer, configs.grammar_dataset())
    assert capsys.readouterr().out == ""


def test_a_cell_may_hold_commas_quotes_and_line_ends(tmp_path: Path, tokenizer: Any) -> None:
    file = tmp_path / "rows.csv"
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([["input", "target"], ['a, "b"\nc', "d"]])
    (sample,) = datasets.get_grammar_dataset(configs.grammar_dataset(), tokenizer, str(file))
    assert 'English: a, "b"\nc\n---' in tokenizer.decode(sample["input_ids"])


ALPACA = [
    {
        "instruction": f"Say {number}.",
        "input": "" if number % 2 else "loudly",
        "output": f"{number}!",
    }
    for number in range(98)
]


@pytest.fixture
def alpaca(tmp_path: Path) -> Any:
    file = tmp_path / "alpaca_data.json"
    file.write_text(json.dumps([*ALPACA, {"instruction": "Wait.", "output": "Yes."}]), "utf-8")
    return configs.alpaca_dataset(data_path=str(file))


@pytest.mark.parametrize(("split", "count"), [("train", 95), ("test", 4)])
def test_alpaca_samples_are_upstreams(split: str, count: int, alpaca: Any, tokenizer: Any) -> None:
    ours = get_preprocessed_dataset(tokenizer, alpaca, split)
    partition = alpaca.train_split if split == "train" else alpaca.test_split
    theirs = load("datasets.alpaca_dataset").InstructionDataset(alpaca, tokenizer, partition)
    assert len(ours) == len(theirs) == count
    assert list(ours) == [theirs[index] for index in range(count)]


SAMSUM = {
    "train": [{"id": "1", "dialogue": "A: hi\r\nB: bye", "summary": "They part."}],
    "val": [{"id": "2", "dialogue": "A: one\r\nB: two", "summary": "They count."}],
    "test": [{"id": "3", "dialogue": "A: no", "summary": "No."}],
}


def write_samsum(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, records in SAMSUM.items():
        (folder / f"{name}.json").write_text(json.dumps(records), "utf-8")


@pytest.mark.parametrize("layout", [".", "data"])
@pytest.mark.parametrize(("split", "file"), [("train", "train"), ("test", "val")])
def test_samsum_in_both_layouts(
    layout: str, split: str, file: str, tmp_path: Path, tokenizer: Any
) -> None:
    write_samsum(tmp_path / "samsum" / layout)
    config = configs.samsum_dataset(data_path=str(tmp_path / "samsum"))
    (sample,) = get_preprocessed_dataset(tokenizer, config, split)
    (record,) = SAMSUM[file]
    prompt = f"<s>Summarize this dialog:\n{record['dialogue']}\n---\nSummary:\n"
    assert tokenizer.decode(sample["input_ids"]) == prompt + record["summary"] + "</s>"
    labels = [label for label in sample["labels"] if label != -100]
    assert tokenizer.decode(labels) == record["summary"] + "</s>"
    assert sample["attention_mask"] == [1] * len(sample["input_ids"])


def test_samsum_test_records_are_reached_by_their_name(tmp_path: Path, tokenizer: Any) -> None:
    write_samsum(tmp_path / "samsum")
    config = configs.samsum_dataset(data_path=str(tmp_path / "samsum"), test_split="test")
    (sample,) = get_preprocessed_dataset(tokenizer, config, "test")
    assert "A: no" in tokenizer.decode(sample["input_ids"])


CUSTOM = """
def get_custom_dataset(dataset_config, tokenizer, split):
    ids = tokenizer.encode(split)
    return [{"input_ids": ids, "labels": ids, "attention_mask": [1] * len(ids)}]

def another(dataset_config, tokenizer, split):
    return [{"input_ids": [1], "labels": [1], "attention_mask": [1]}] * 3
"""
COLLATOR = """
def get_data_collator(processor):
    return lambda rows: (processor.eos_token, rows)
"""


@pytest.fixture
def custom(tmp_path: Path) -> Path:
    paths.set_data_root(str(tmp_path))
    file = tmp_path / "mine.py"
    file.write_text(CUSTOM, "utf-8")
    return file


def test_custom_data_from_a_file(custom: Path, tokenizer: Any) -> None:
    config = configs.custom_dataset(file="mine.py")
    for split, name in (("train", "train"), ("test", "validation")):
        (sample,) = get_preprocessed_dataset(tokenizer, config, split)
        assert sample["input_ids"] == tokenizer.encode(name)


def test_custom_data_from_a_function(
    custom: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configs.custom_dataset(file="mine.py:another")
    assert len(get_preprocessed_dataset(tokenizer, config)) == 3
    assert f"runs another of {custom}" in capsys.readouterr().out
    assert config.file == "mine.py:another"


@pytest.mark.parametrize("function", ["", ":another"])
def test_custom_collator(function: str, custom: Path, tokenizer: Any) -> None:
    custom.write_text(CUSTOM + COLLATOR, "utf-8")
    collate = get_custom_data_collator(tokenizer, configs.custom_dataset(file=f"mine.py{function}"))
    assert collate([1, 2]) == ("</s>", [1, 2])


@pytest.mark.parametrize("function", ["", ":another"])
def test_without_a_custom_collator_there_is_none(
    function: str, custom: Path, tokenizer: Any
) -> None:
    config = configs.custom_dataset(file=f"mine.py{function}")
    assert get_custom_data_collator(tokenizer, config) is None


def test_other_data_sets_bring_no_collator(tokenizer: Any) -> None:
    assert get_custom_data_collator(tokenizer, configs.grammar_dataset()) is None


@pytest.mark.parametrize("layout", [".", "data/0124"])
def test_toxicchat_in_both_layouts(layout: str, tmp_path: Path) -> None:
    folder = tmp_path / layout
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toxic-chat_annotation_test.csv").write_text("user_input,toxicity\nhi,1\n")
    config = configs.llamaguard_toxicchat_dataset(data_path=str(tmp_path))
    rows = datasets.sources.load_toxicchat(config, config.test_split)
    assert rows.to_list() == [{"user_input": "hi", "toxicity": 1}]


def test_the_tables_have_upstreams_names() -> None:
    assert set(datasets.DATASET_PREPROC) == set(load("datasets").DATASET_PREPROC)
    assert set(datasets.DATALOADER_COLLATE_FUNC) == set(load("datasets").DATALOADER_COLLATE_FUNC)


def test_an_unknown_data_set_is_refused(tokenizer: Any) -> None:
    with pytest.raises(NotImplementedError, match="no_such"):
        get_preprocessed_dataset(tokenizer, SimpleNamespace(dataset="no_such"))
