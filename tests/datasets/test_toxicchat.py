"""ToxicChat's rows are the same from csv and parquet, wherever a clone has them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from llama_recipes_local import configs, datasets
from llama_recipes_local.errors import UsageError

MODERATION = "[['hate', 0.9]]"
ROWS = {
    "train": [
        {"user_input": "hi", "model_output": "", "openai_moderation": "[]", "toxicity": 0},
        {"user_input": "no", "model_output": "b", "openai_moderation": MODERATION, "toxicity": 1},
    ],
    "test": [{"user_input": "a", "model_output": "", "openai_moderation": "[]", "toxicity": 0}],
}


def write_csv(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in ROWS.items():
        lines = [",".join(f'"{value}"' for value in ["id", *row.values()]) for row in rows]
        text = "\n".join([",".join(["conv_id", *rows[0]]), *lines]) + "\n"
        (folder / f"toxic-chat_annotation_{split}.csv").write_text(text)


def beside(folder: Path) -> None:
    write_csv(folder)


def clone(folder: Path) -> None:
    write_csv(folder / "data" / "0124")
    (folder / "data/0124/toxic-chat_annotation_all.csv").write_text("not read")
    (folder / "data/1123").mkdir()
    for split in ROWS:
        (folder / f"data/1123/toxic-chat_annotation_{split}.csv").write_text("not read")


def packed_too(folder: Path) -> None:
    write_csv(folder)
    for split in ROWS:
        (folder / f"toxic-chat_annotation_{split}.csv.gz").write_bytes(b"not read")


def converted(folder: Path) -> None:
    for split, rows in ROWS.items():
        path = folder / "toxicchat0124" / split / "0000.parquet"
        path.parent.mkdir(parents=True)
        parquet.write_table(pa.Table.from_pylist([row | {"conv_id": "x"} for row in rows]), path)


def parquet_parts(folder: Path) -> None:
    (folder / "data").mkdir()
    for split, rows in ROWS.items():
        for part, row in enumerate(rows):
            path = folder / "data" / f"{split}-0000{part}-of-0000{len(rows)}.parquet"
            parquet.write_table(pa.Table.from_pylist([row]), path)


@pytest.mark.parametrize("layout", [beside, clone, packed_too, converted, parquet_parts])
def test_each_layout_gives_the_same_rows(layout: Callable[[Path], None], tmp_path: Path) -> None:
    layout(tmp_path)
    config = configs.llamaguard_toxicchat_dataset(data_path=str(tmp_path))
    for split, rows in ROWS.items():
        assert datasets.sources.load_toxicchat(config, split).to_list() == rows


def refused(config: Any) -> str:
    with pytest.raises(UsageError) as caught:
        datasets.sources.load_toxicchat(config, "train")
    (problem,) = caught.value.problems
    return str(problem)


def test_what_is_wrong(tmp_path: Path) -> None:
    config = configs.llamaguard_toxicchat_dataset(data_path=str(tmp_path))
    missing = refused(config)
    assert f"no train split of ToxicChat in {tmp_path}" in missing
    assert "toxic-chat_annotation_train.csv" in missing and "parquet" in missing
    beside(tmp_path)
    file = tmp_path / "toxic-chat_annotation_train.csv"
    file.write_text(file.read_text().replace('"1"', '"maybe"'))
    assert f"'toxicity' in line 3 of {file} is neither 0 nor 1" in refused(config)
    file.write_text("user_input,toxicity\nhi,1\n")
    assert f"{file} has no column model_output, openai_moderation" in refused(config)
