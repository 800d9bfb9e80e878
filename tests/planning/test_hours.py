"""How long validations take, beside the steps."""

from dataclasses import replace

import pytest

from llama_recipes_local.configs import train_config
from llama_recipes_local.planning.cards import card
from llama_recipes_local.planning.hours import steps_of, validations
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
    count, took = validations(found, train_config(num_epochs=3), 100 * STEP, 5 * STEP)
    assert (count, took) == (4, pytest.approx(4 * 5 * found.seconds.step / passes))


def test_validations_are_counted_as_the_trainer_has_them() -> None:
    found = outcome(LORA, card(141, "H200"))

    def count(**fields: int) -> int:
        return validations(found, train_config(**fields), 100 * STEP, STEP)[0]

    assert count(num_epochs=3, eval_steps=20) == 16
    assert count(num_epochs=3, eval_steps=70) == 1 + 4 + 1  # the last step is validated too
    assert count(num_epochs=3, max_train_step=30) == 2
    assert steps_of(found, train_config(num_epochs=3, max_train_step=30), 100 * STEP) == 30
    assert steps_of(found, train_config(num_epochs=3), 100 * STEP) == 300
    rows = replace(LORA, batch=Batch(rows=1, length=1536))  # 7 * epoch / epoch is above 7
    of_one = outcome(rows, card(141, "H200"))
    assert validations(of_one, train_config(num_epochs=7), 1_000_010, STEP)[0] == 8
    few = train_config(num_epochs=1, max_eval_step=2, val_batch_size=1)
    _, seconds = validations(found, few, 100 * STEP, 5 * STEP)
    assert seconds == pytest.approx(2 * (2 * 4 * 4096 / STEP) * found.seconds.step / 2)
