"""Samples from local files are what upstream makes of the same rows."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llama_recipes_local import configs, datasets
from llama_recipes_local._upstream import load
from llama_recipes_local.datasets.registry import DATASETS
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
    config = configs.grammar_dataset(data_root=str(grammar_data))
    ours = get_preprocessed_dataset(tokenizer, config, split)
    theirs = load("datasets.grammar_dataset.grammar_dataset").grammar
    upstream = SimpleNamespace(tokenizer=tokenizer, print_text=False)
    rows = rows_of(grammar_data / "datasets" / "grammar" / file)
    assert len(ours) == len(rows) == count
    for sample, row in zip(ours, rows, strict=True):
        assert sample == theirs.convert_to_features(upstream, row)


def test_grammar_labels_are_the_correction_alone(grammar_data: Path, tokenizer: Any) -> None:
    config = configs.grammar_dataset(data_root=str(grammar_data))
    (first, *_) = get_preprocessed_dataset(tokenizer, config)
    (row, *_) = rows_of(grammar_data / "datasets/grammar/gtrain_10k.csv")
    labels = [label for label in first["labels"] if label != -100]
    assert tokenizer.decode(labels) == row["target"] + "</s>"
    text = tokenizer.decode(first["input_ids"])
    prompt = f"<s>Correct this to standard English: {row['input']}\n---\nCorrected: "
    assert text == prompt + row["target"] + "</s>"


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["no-BOM", "BOM"])
def test_blank_rows_are_skipped(mark: str, tmp_path: Path, tokenizer: Any) -> None:
    file = tmp_path / "rows.csv"
    lines = ["input,target", "a b,A b.", ",A.", "a,", "  ,A.", "a,  ", "é ü,É ü."]
    file.write_text(mark + "\n".join(lines) + "\n", encoding="utf-8")
    samples = datasets.get_grammar_dataset(configs.grammar_dataset(), tokenizer, str(file))
    assert [tokenizer.decode(sample["input_ids"]).split("English: ")[1] for sample in samples] == [
        "a b\n---\nCorrected: A b.</s>",
        "é ü\n---\nCorrected: É ü.</s>",
    ]


@pytest.mark.parametrize("name", ["rows", "rows.txt"])
def test_a_file_is_csv_unless_its_name_says_otherwise(
    name: str, tmp_path: Path, tokenizer: Any
) -> None:
    (tmp_path / name).write_text("input,target\na,b\n")
    assert (
        len(
            datasets.get_grammar_dataset(configs.grammar_dataset(), tokenizer, str(tmp_path / name))
        )
        == 1
    )


def test_a_cell_may_hold_commas_quotes_and_line_ends(tmp_path: Path, tokenizer: Any) -> None:
    file = tmp_path / "rows.csv"
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([["input", "target"], ['a, "b"\nc', "d"]])
    (sample,) = datasets.get_grammar_dataset(configs.grammar_dataset(), tokenizer, str(file))
    assert 'English: a, "b"\nc\n---' in tokenizer.decode(sample["input_ids"])


def test_other_data_sets_have_no_collator(tokenizer: Any) -> None:
    assert get_custom_data_collator(tokenizer, configs.grammar_dataset()) is None


def test_the_tables_have_upstreams_names() -> None:
    assert set(datasets.DATASET_PREPROC) >= set(load("datasets").DATASET_PREPROC)
    assert set(datasets.DATALOADER_COLLATE_FUNC) == set(load("datasets").DATALOADER_COLLATE_FUNC)


def test_every_data_set_has_a_way_to_load_it() -> None:
    assert set(datasets.DATASET_PREPROC) == set(DATASETS)
    for name, dataset in DATASETS.items():
        assert dataset.config().dataset == name
        assert (dataset.split is None) == (dataset.load is not None)
        assert dataset.split or dataset.check
        assert dataset.flag.startswith(f"--{name}.") or name in ("custom_dataset", "mixed_dataset")


def test_an_unknown_data_set_is_refused(tokenizer: Any) -> None:
    with pytest.raises(NotImplementedError, match="no_such"):
        get_preprocessed_dataset(tokenizer, SimpleNamespace(dataset="no_such"))
