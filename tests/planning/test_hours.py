"""How long validations take, beside the steps."""

from dataclasses import replace
from typing import Any

import pytest

from llama_recipes_local.configs import train_config
from llama_recipes_local.planning.cards import card
from llama_recipes_local.planning.hours import duration
from llama_recipes_local.planning.search import outcome
from llama_recipes_local.planning.setting import (
    FULL,
    REPLICATED,
    Adapter,
    Batch,
    Ranks,
    Setting,
    Weights,
)
from llama_recipes_local.planning.shapes import KNOWN

S7 = KNOWN["llama-2-7b"]
LORA = Setting(S7, adapter=Adapter(), batch=Batch(rows=2), ranks=Ranks(4, 1, REPLICATED))
STEP = 4 * 2 * 4096
WHOLE = replace(LORA, adapter=None, weights=Weights(trained=S7.weights))


@pytest.mark.parametrize(
    ("setting", "passes"),
    [
        (LORA, 2),
        (replace(LORA, policy=FULL), 3),
        (WHOLE, 3),
        (replace(WHOLE, policy=FULL), 4),
    ],
    ids=["LoRA", "recomputed", "full", "full, recomputed"],
)
def test_a_validation_is_a_forward_pass(setting: Setting, passes: int) -> None:
    found = outcome(setting, card(141, "H200"))
    # before training and after each of three epochs, of as many tokens as five steps have
    took = duration(found, train_config(num_epochs=3), 100 * STEP, 5 * STEP)
    assert took.validations == 4
    assert took.validating == pytest.approx(4 * 5 * found.seconds.step / passes)
    assert took.hours == pytest.approx((took.validating + 300 * found.seconds.step) / 3600)


def test_validations_are_counted_as_the_trainer_has_them() -> None:
    found = outcome(LORA, card(141, "H200"))

    def count(**fields: int) -> int:
        return duration(found, train_config(**fields), 100 * STEP, STEP).validations

    assert count(num_epochs=3, eval_steps=20) == 16
    assert count(num_epochs=3, eval_steps=70) == 1 + 4 + 1  # the last step is validated too
    assert count(num_epochs=3, max_train_step=30) == 2
    few = train_config(num_epochs=1, max_eval_step=2, val_batch_size=1)
    took = duration(found, few, 100 * STEP, 5 * STEP)
    assert took.validating == pytest.approx(2 * (2 * 4 * 4096 / STEP) * found.seconds.step / 2)
    assert duration(found, few, 100 * STEP, None).validations == 0


def test_steps_are_counted_as_the_trainer_has_them() -> None:
    found = outcome(LORA, card(141, "H200"))

    def steps(tokens: int, **fields: Any) -> int:
        return duration(found, train_config(**fields), tokens, None).steps

    assert steps(100 * STEP, num_epochs=3) == 300
    assert steps(100 * STEP, num_epochs=3, max_train_step=30) == 30
    # an epoch ends with a step of what is left, and has one at least
    assert steps(100 * STEP + 1, num_epochs=3) == 303
    assert steps(STEP // 100, num_epochs=7) == 7
    assert duration(found, train_config(num_epochs=7), 9, STEP).validations == 8


def test_a_padded_row_has_one_document() -> None:
    short = replace(LORA, batch=Batch(rows=2, document=64))
    found = outcome(short, card(141, "H200"))
    padded = train_config(num_epochs=1, batching_strategy="padding")
    rows = 4 * 2 * 50
    took = duration(found, padded, rows * 64, None)
    assert took.steps == 50
    assert took.training == pytest.approx(rows * 64 / found.tokens)


def test_rows_that_are_packed_are_counted_not_their_tokens() -> None:
    found = outcome(LORA, card(141, "H200"))
    once = train_config(num_epochs=2)
    # best fit leaves positions unused: 90 steps of tokens lie in rows of 100 steps, and one row
    assert duration(found, once, 90 * STEP, None).steps == 2 * 90
    assert duration(found, once, 90 * STEP, None, rows=100 * 8).steps == 2 * 100
    assert duration(found, once, 90 * STEP, None, rows=100 * 8 + 1).steps == 2 * 101
