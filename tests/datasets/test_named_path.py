"""``--dataset PATH``: a path in the place of a data set's name."""

import json
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.commands.evaluate.recorded_run import _not_overridden
from llama_recipes_local.datasets.named_path import with_data_path
from llama_recipes_local.errors import UsageError
from llama_recipes_local.preflight import preflight_data

ROWS = "".join(json.dumps({"text": f"row {number}"}) + "\n" for number in range(40))


@pytest.mark.parametrize("flag", ["dataset", "train_config.dataset"])
@pytest.mark.parametrize("name", ["my.jsonl", "my", "folder/", "*.jsonl", "rows.csv.gz"])
def test_a_path_is_read_as_local_data(name: str, flag: str, tmp_path: Path) -> None:
    (tmp_path / "my").mkdir()
    flags, problems = with_data_path({flag: name, "lr": 1, "data_root": str(tmp_path)})
    assert not problems
    assert flags["dataset"] == "local_dataset"
    assert flags["local_dataset.data_path"] == name
    assert flags["lr"] == 1


NAMES = ["grammar_dataset", "grammer_dataset", True, None, "", ["a.jsonl", "b.jsonl"]]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stays_a_name(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grammar_dataset").mkdir()
    assert with_data_path({"dataset": name}) == ({"dataset": name}, [])
    assert with_data_path({"lr": 1}) == ({"lr": 1}, [])


def test_two_paths_are_refused() -> None:
    _, (problem,) = with_data_path({"dataset": "a.csv", "local_dataset.data_path": "b.csv"})
    assert problem.what == "--dataset a.csv with --local_dataset.data_path b.csv"


def test_the_preflight_reads_the_path(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my.jsonl").write_text(ROWS)
    given = {"model_name": str(tiny_model), "dataset": str(tmp_path / "my.jsonl")}
    run = preflight_data((), given)
    assert run.train.dataset == "local_dataset"
    assert f"text (text) from {tmp_path / 'my.jsonl'}" in capsys.readouterr().out


def test_a_missing_path_is_reported_as_a_path(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refusal:
        preflight_data((), {"model_name": str(tiny_model), "dataset": str(tmp_path / "no.jsonl")})
    (problem,) = refusal.value.problems
    assert problem.what == f"{tmp_path / 'no.jsonl'} does not exist"


def test_evaluate_on_a_path_forgets_the_files_of_the_run() -> None:
    given = {"dataset": "local_dataset", "local_dataset.validation_path": "held.jsonl"}
    given |= {"local_dataset.columns": "text=a", "local_dataset.labels": "all"}
    assert _not_overridden(given, {"dataset": "other.jsonl"}) == {"local_dataset.labels": "all"}
    assert _not_overridden(given, {"lr": 1}) == given
