"""A key that an object has twice: named with its place, where json would keep the last value."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from llama_recipes_local.errors import UsageError
from llama_recipes_local.records.any_format import records
from llama_recipes_local.records.checked_values import Flawed
from llama_recipes_local.records.json_values import read_value

GOOD = '{"prompt": "a", "completion": "b"}'
TWICE = '{"prompt": "a", "completion": "b", "completion": "c"}'
IN_A_TURN = '{"messages": [{"role": "user", "content": "a", "content": "a"}]}'


@pytest.mark.parametrize("twice", [TWICE, IN_A_TURN, '{"prompt": {"a": [{"b": 1, "b": 1}]}}'])
@pytest.mark.parametrize(
    ("name", "form", "place"),
    [
        ("a.jsonl", "{good}\n{twice}\n{good}\n", "line 2"),
        ("a.json", "[{good}, {twice}, {good}]", "item 2"),
        ("a.json", '{{"data": [{good},\n {twice}, {good}]}}', "item 2"),
    ],
)
def test_a_key_twice_is_a_flaw_of_its_record(
    name: str, form: str, place: str, twice: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(form.format(good=GOOD, twice=twice))
    kept = list(records(path, keep_flawed=True))
    assert [isinstance(values, Flawed) for _, values in kept] == [False, True, False]
    (problem,) = kept[1][1].problems  # type: ignore[attr-defined]
    key = next(key for key in ("completion", "content", "b") if twice.count(f'"{key}":') == 2)
    assert problem.what == f"{place} of {path} has the key {key!r} more than once"
    assert kept[2][1] == json.loads(GOOD)
    with pytest.raises(UsageError, match="more than once"):
        list(records(path))


def test_a_file_that_is_one_object_with_a_key_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"text": ["a"], "text": ["b"]}')
    with pytest.raises(UsageError, match="has the key 'text' more than once"):
        list(records(path))


def test_what_is_no_repetition(tmp_path: Path) -> None:
    text = '{"a": {"a": 1, "b": {"a": 2}}, "A": [{"a": 3}, {"a": 4}]}'
    assert read_value(text) == json.loads(text)
    with pytest.raises(ValueError, match="the key 'a' is there more than once"):
        read_value('[{"a": 1, "\\u0061": 2}]')


def test_columns_and_fields_of_parquet_of_one_name(tmp_path: Path) -> None:
    texts = [pa.array([text]) for text in ("a", "b", "c")]
    table = pa.Table.from_arrays(texts, names=["prompt", "completion", "completion"])
    parquet.write_table(table, tmp_path / "columns.parquet")
    with pytest.raises(UsageError, match="has the column completion more than once"):
        list(records(tmp_path / "columns.parquet"))
    turn = pa.StructArray.from_arrays(texts, names=["role", "content", "content"])
    parquet.write_table(pa.Table.from_arrays([turn], ["turn"]), tmp_path / "fields.parquet")
    with pytest.raises(UsageError, match="duplicate field names"):
        list(records(tmp_path / "fields.parquet"))
