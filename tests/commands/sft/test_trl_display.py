"""What TRL's trainer logs is shown as finetuning.py shows its own steps."""

from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from llama_recipes_local.commands.sft import trl_display
from llama_recipes_local.commands.sft.trl_display import DisplayCallback


def test_steps_and_validations_are_shown_without_dictionaries(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(trl_display.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(trl_display, "memory_gib", lambda: 1.5)
    state = TrainerState(max_steps=40, num_train_epochs=2)
    shows = DisplayCallback(live=True)

    def tell(what: str, seconds: float, **more: Any) -> None:
        now[0] += seconds
        getattr(shows, what)(TrainingArguments(), state, TrainerControl(), **more)

    with shows.display:
        tell("on_train_begin", 1.0)
        for step in range(1, 21):
            state.global_step, state.epoch = step, step / 20
            tell("on_step_end", 0.5)
            if step % 10:
                continue
            logs = {"loss": 2.5, "grad_norm": 0.125, "learning_rate": 1e-4}
            tell("on_log", 0.0, logs=logs | {"num_tokens": step * 100})
        for _ in range(30):
            tell("on_prediction_step", 1.0, eval_dataloader=range(30))
        state.global_step = 20
        logs = {"eval_loss": 1.0, "eval_runtime": 29.5, "eval_num_tokens": 9}
        tell("on_log", 0.0, logs=logs)
        tell("on_evaluate", 0.0)
        for step in range(21, 41):
            state.global_step, state.epoch = step, step / 20
            tell("on_step_end", 0.5)
        logs = {"loss": 2.25, "grad_norm": 0.125, "learning_rate": 1e-4}
        tell("on_log", 0.0, logs=logs | {"num_tokens": 4000})
        tell("on_log", 0.0, logs={"train_runtime": 49.0})
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == [
        "--> first step: 0.5 s",
        "step 10/40  loss 2.5000  grad_norm 0.125     200 tok/s   1.5 GiB  left 0:15",
    ]
    assert printed[-1] == (
        # 2000 tokens in the 10 seconds that were not spent on the validation
        "step 40/40  loss 2.2500  grad_norm 0.125     200 tok/s   1.5 GiB  left 0:00"
    )
    assert "validation loss 1.0000  perplexity 2.718  after step 20  in 29.5 s" in printed
    assert "validating  11/30 batches  left 0:19" in printed
    assert not any("{" in line for line in printed)
