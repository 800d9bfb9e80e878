"""Rows that cannot be used: all kinds in one report, or left out and counted."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.configs.datasets import local_dataset
from llama_recipes_local.datasets.file_checks import check_files
from llama_recipes_local.datasets.local import DATASET, split
from llama_recipes_local.datasets.rows import RowFormatter
from llama_recipes_local.datasets.tokenized_splits import is_tokenized, load_split, stream_split
from llama_recipes_local.errors import RecordError, UsageError

GOOD = {"prompt": "a", "completion": "b"}
ROWS = [
    "not JSON at all",
    *[json.dumps(GOOD)] * 3,
    json.dumps({"prompt": "a"}),
    json.dumps(GOOD),
    "[1]",
    json.dumps({"prompt": "a", "completion": 42}),
    json.dumps({"prompt": "a", "completion": ["b"]}),
    json.dumps({"prompt": "a", "completion": ""}),
    json.dumps({"prompt": "a", "completion": None}),
    '{"prompt": "a", "compl',
]


@pytest.fixture
def config(tmp_path: Path) -> local_dataset:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(ROWS))
    return local_dataset(data_path=str(path), validation_path=str(path), template="none")


def test_every_kind_is_in_one_report(config: local_dataset, tokenizer: Any) -> None:
    problems = check_files(DATASET, config, tokenizer=tokenizer)
    kinds = {problem.what.replace(f" of {config.data_path}", ""): problem for problem in problems}
    assert set(kinds) == {
        "line 1 is not JSON",
        "line 5 has no 'completion'",
        "line 7 is not a JSON object",
        "'completion' in line 8 is not text",
    }
    assert "2 records are so: line 1, line 12" in kinds["line 1 is not JSON"].why
    assert "2 records are so: line 8, line 9" in kinds["'completion' in line 8 is not text"].why
    flag = "leave such rows out: --local_dataset.skip_bad_rows=True"
    assert all(flag in problem.fix for problem in problems)


def test_bad_rows_are_left_out_and_counted(
    config: local_dataset, tokenizer: Any, tmp_path: Path
) -> None:
    skipping = replace(config, skip_bad_rows=True)
    assert not check_files(DATASET, skipping, tokenizer=tokenizer)
    loaded = load_split(split(skipping, "train"), tokenizer, cache=str(tmp_path / "cache"))
    assert (loaded.audit.rows, loaded.audit.counts.bad, loaded.audit.counts.blank) == (4, 6, 2)
    assert loaded.audit.counts.records == len(ROWS)


def test_rows_of_a_table_with_other_columns(tmp_path: Path, tokenizer: Any) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\na,b\na\na,b,c\na,b\na,b,c\n")
    config = local_dataset(data_path=str(path), validation_path=str(path), template="none")
    with pytest.raises(UsageError) as refusal:
        load_split(split(config, "train"), tokenizer, cache=str(tmp_path / "cache"))
    (problem, other) = refusal.value.problems
    assert problem.what == f"line 3 of {path} has 1 column"
    assert "2 records are so: line 4, line 6" in other.why
    loaded = load_split(
        split(replace(config, skip_bad_rows=True), "train"), tokenizer, cache=str(tmp_path / "c")
    )
    assert (loaded.audit.rows, loaded.audit.counts.bad) == (2, 3)


def test_a_flaw_of_both_parts_is_one_kind_of_the_first_places(
    config: local_dataset, tokenizer: Any
) -> None:
    """Rows that are held out are of the same file, and so is what is wrong with them."""
    rows = [json.dumps(GOOD)] * 41
    for place in (20, 1, 7, 40, 30, 0):  # line 1, line 21 and line 41 are held out
        rows[place] = json.dumps({"prompt": "a", "completion": place})
    Path(config.data_path).write_text("\n".join(rows))
    (problem,) = check_files(DATASET, replace(config, validation_path=""), tokenizer=tokenizer)
    assert "6 records are so: line 1, line 2, line 8, ..." in problem.why
    assert problem.what.startswith("'completion' in line 1 of ") and "it is 0;" in problem.why
    assert problem.fix.count("skip_bad_rows") == 1


def test_records_whose_tokens_are_in_the_cache_are_not_read_again(
    config: local_dataset, tokenizer: Any, tmp_path: Path
) -> None:
    Path(config.data_path).write_text("\n".join([json.dumps(GOOD)] * 3))
    found, cache = split(config, "train"), str(tmp_path / "cache")

    def known(part: Any) -> bool:
        return is_tokenized(part, tokenizer, 8, cache)

    assert not known(found) and not (tmp_path / "cache").exists()
    load_split(found, tokenizer, 8, cache)
    assert known(found) and not is_tokenized(found, tokenizer, 9, cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowFormatter, "__call__", lambda *_: pytest.fail("read again"))
        assert not check_files(DATASET, config, ("train",), tokenizer, known)


def test_a_stream_stops_with_all_that_is_wrong(config: local_dataset, tokenizer: Any) -> None:
    with pytest.raises(RecordError) as error:
        list(stream_split(split(config, "train"), tokenizer).open_pass(0))
    message = str(error.value)
    assert "2 records are so: line 1, line 12" in message and "has no 'completion'" in message
    skipping = replace(config, skip_bad_rows=True)
    assert len(list(stream_split(split(skipping, "train"), tokenizer).open_pass(0))) == 4


def test_what_a_stream_skips_is_said_and_counted_once(
    config: local_dataset,
    tokenizer: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llama_recipes_local.datasets.tokenized_splits.RECORDS_AT_A_TIME", 5)
    stream = stream_split(split(replace(config, skip_bad_rows=True), "train"), tokenizer)
    capsys.readouterr()
    for number in range(2):
        assert len(list(stream.open_pass(number))) == 4
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"--> stream, skipped: line 1 of {config.data_path} is not JSON: ")
    assert last.startswith(
        f"--> stream, the first pass: {len(ROWS)} records read, 2 blank, skipped, "
        "6 cannot be used, skipped"
    )


def test_the_first_records_of_a_stream_are_checked(
    config: local_dataset, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_recipes_local.datasets.file_checks.STREAMED", 2)
    rows = [{"prompt": "", "completion": "b"}, {"prompt": 1, "completion": "b"}, GOOD, {"a": 1}]
    Path(config.data_path).write_text("\n".join(map(json.dumps, rows)))
    (problem,) = check_files(DATASET, replace(config, streaming=True), tokenizer=tokenizer)
    assert "'prompt' in line 2" in problem.what


def test_where_all_rows_are_flawed_the_first_is_named(
    config: local_dataset, tokenizer: Any
) -> None:
    Path(config.data_path).write_text('{"a\n' * 5)
    problems = check_files(DATASET, config, tokenizer=tokenizer)
    assert {problem.what for problem in problems} == {f"line 1 of {config.data_path} is not JSON"}
