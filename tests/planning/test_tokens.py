"""The tokens of a data set's parts, beside the records that are really in them."""

import json
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.datasets.base import Part, find_split
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.planning.tokens import BYTES_A_TOKEN, bytes_of, held_out_tokens
from llama_recipes_local.run.resolution import resolve

ROW = {"instruction": "Count.", "input": "", "output": "one two three"}
PARTS: tuple[Part, Part] = ("train", "test")


@pytest.mark.parametrize("fraction", ["0.05", "0.25"])
@pytest.mark.parametrize("dataset", ["local_dataset", "alpaca_dataset"])
def test_the_parts_of_one_file_share_its_bytes(dataset: str, fraction: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([ROW] * 200), encoding="utf-8")
    flags: dict[str, Any] = {"dataset": dataset, f"{dataset}.data_path": str(path)}
    if dataset == "local_dataset":
        flags["local_dataset.validation_fraction"] = fraction
    run = resolve(flags)
    size = path.stat().st_size
    for part in PARTS:
        split = find_split(DATASETS[dataset], run.dataset, part)
        assert split is not None
        records = sum(1 for _ in split.records())
        assert bytes_of(run.dataset, part) == pytest.approx(size * records / 200, abs=1)
    held_out = bytes_of(run.dataset, "test")
    assert held_out is not None
    assert held_out_tokens(run) == held_out // BYTES_A_TOKEN


def test_the_parts_of_a_json_file_of_several_are_not_known(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"train": [ROW] * 9, "validation": [ROW]}), encoding="utf-8")
    run = resolve({"dataset": "local_dataset", "local_dataset.data_path": str(path)})
    assert [bytes_of(run.dataset, part) for part in PARTS] == [None, None]
    assert held_out_tokens(run) is None


def test_the_files_of_a_part_are_its_own(tmp_path: Path) -> None:
    for name, rows in (("train", 9), ("validation", 2)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(ROW) + "\n" * rows, encoding="utf-8")
    run = resolve({"dataset": "local_dataset", "local_dataset.data_path": str(tmp_path)})
    sizes = [(tmp_path / f"{name}.jsonl").stat().st_size for name in ("train", "validation")]
    assert [bytes_of(run.dataset, part) for part in PARTS] == sizes
