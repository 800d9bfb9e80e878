"""Which data is read: a stream needs an end, a row two tokens, and a wrong value one report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import configs
from llama_recipes_local.datasets.named_path import with_data_path
from llama_recipes_local.errors import UsageError
from llama_recipes_local.preflight import preflight_data
from llama_recipes_local.preflight.checks import BATCHES, check_values, find_problems
from llama_recipes_local.preflight.data_rules import (
    check_data_files,
    check_vision_data,
    stream_problems,
)
from llama_recipes_local.preflight.mixture_rules import check_mixture
from llama_recipes_local.run import Run
from llama_recipes_local.run.resolution import resolve


@dataclass
class StreamedConfig:
    streaming: bool = True


def whats(dataset: Any, **fields: Any) -> list[str]:
    run = Run({}, train=configs.train_config(**fields), dataset=dataset)
    return [problem.what for problem in find_problems(run, (check_values, *BATCHES))]


def test_a_stream_needs_both_lengths() -> None:
    assert whats(StreamedConfig()) == [
        "a streamed data set without --max_train_step",
        "a streamed data set without --max_eval_step",
    ]
    assert whats(StreamedConfig(), max_train_step=5, max_eval_step=5) == []
    assert whats(StreamedConfig(), max_train_step=5, run_validation=False) == []


def test_an_evaluation_on_a_stream_needs_one_length() -> None:
    train = configs.train_config()
    (problem,) = stream_problems(train, training=False)
    assert problem.fix == "give --max_eval_step N"
    train.max_eval_step, train.run_validation = 2, False
    assert stream_problems(train, training=False) == []


@pytest.mark.parametrize("dataset", [None, configs.grammar_dataset(), StreamedConfig(False)])
def test_other_data_needs_none(dataset: Any) -> None:
    assert whats(dataset) == []


def test_packed_rows_hold_two_tokens_or_more() -> None:
    assert whats(None, context_length=1) == ["--context_length 1"]
    assert whats(None, context_length=2) == []
    assert whats(None, context_length=0) == ["--context_length is 0"]
    assert whats(None, context_length=-1) == ["--context_length is -1"]
    assert whats(None, context_length=1, batching_strategy="padding") == []


def test_a_seed_that_torch_does_not_take() -> None:
    assert whats(None, seed=2**63 - 1) == whats(None, seed=-(2**63)) == []
    assert whats(None, seed=2**63) == [f"--seed is {2**63}"]


def test_a_wrong_value_of_a_data_set_is_reported_once(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    config = configs.local_dataset(data_path=str(tmp_path), format="sharegpt")
    train = configs.train_config(dataset="local_dataset", model_name=str(tiny_model))
    run = Run({}, train=train, dataset=config)
    (problem,) = find_problems(run, (check_values, check_data_files))
    assert problem.what.startswith("unknown --local_dataset.format sharegpt")
    config.format = "auto"
    assert find_problems(run, (check_values, check_data_files)) == []


def test_a_folder_in_place_of_a_file_is_a_problem(tiny_model: Path, tmp_path: Path) -> None:
    flags = {"model_name": str(tiny_model), "dataset": "grammar_dataset"}
    run = resolve(flags | {"grammar_dataset.test_split": str(tmp_path)})
    assert f"{tmp_path} is a folder" in [each.what for each in check_data_files(run, ("test",))]


def test_a_mixture_without_a_usable_weight_is_not_looked_for_in_files(tiny_model: Path) -> None:
    flags = {"model_name": str(tiny_model), "dataset": "grammar_dataset:x,samsum_dataset:0"}
    problems = find_problems(resolve(with_data_path(flags)[0]), (check_mixture, check_data_files))
    assert [problem.what.split(" is ")[0] for problem in problems] == [
        "the weight of grammar_dataset",
        "the weight of samsum_dataset",
    ]


def test_the_default_files_are_not_looked_for_where_the_named_path_was_refused(
    tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    flags = {"model_name": str(tiny_model), "dataset": str(tmp_path / "loop")}
    with pytest.raises(UsageError) as refused:
        preflight_data((), flags)
    (problem,) = refused.value.problems
    assert "leads back to itself" in problem.why


def test_the_files_of_a_data_set_that_was_not_named_are_one_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    missing = {"model_name": str(tmp_path / "model")}
    (problem,) = check_data_files(resolve(missing))
    assert problem.what == "no data set was named" and "--dataset PATH" in problem.fix
    named = check_data_files(resolve(missing | {"dataset": "samsum_dataset"}))
    assert named and named[0].what in problem.why
    root = check_data_files(resolve(missing | {"data_root": str(tmp_path)}))
    assert root == named


def test_a_vision_model_needs_rows_with_images_that_are_not_packed(tmp_path: Path) -> None:
    config = configs.samsum_dataset()

    def found(**fields: Any) -> list[str]:
        train = configs.train_config(model_name=str(tmp_path), **fields)
        return [each.what for each in check_vision_data(Run({}, train=train, dataset=config))]

    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert found(batching_strategy="packing", dataset="samsum_dataset") == []
    (tmp_path / "config.json").write_text('{"model_type": "mllama"}')
    assert found(batching_strategy="packing", dataset="samsum_dataset") == [
        "--batching_strategy packing with a vision model",
        "--dataset samsum_dataset with a vision model",
    ]
    assert found(batching_strategy="padding", dataset="custom_dataset") == []
