"""Which data there is; a stream needs to be told where to end, and a row needs two tokens."""

from dataclasses import dataclass
from typing import Any

import pytest

from llama_recipes_local import configs
from llama_recipes_local.preflight.checks import BATCHES, check_values, find_problems
from llama_recipes_local.run.resolution import Run


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
