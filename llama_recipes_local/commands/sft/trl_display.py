"""Shows the steps of TRL's trainer in the same way as ``finetuning.py`` shows its own."""

import math
import time
from dataclasses import replace
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llama_recipes_local.answers.measures import perplexity
from llama_recipes_local.parallel import is_rank_zero
from llama_recipes_local.run.stages import print_stage
from llama_recipes_local.training.display import Display, Shown
from llama_recipes_local.training.progress import memory_gib


class DisplayCallback(TrainerCallback):
    """Takes the place of the Trainer's bars and of the dictionaries that it prints.

    Numbers come every ``logging_steps``; between them the step and the time left are shown.

    Attributes:
        display: to be entered around the training.
    """

    def __init__(self, live: bool) -> None:
        self.display = Display(live)
        self._shown: Shown | None = None
        self._last = self._began = time.perf_counter()
        self._first = 0  # steps done before this process, when it resumes
        self._tokens = 0.0
        self._validating = 0.0  # seconds, since training began and since the last numbers
        self._since_last = 0.0
        self._eval_began = 0.0
        self._batches = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to measure time."""
        self._last = self._began = self._eval_began = time.perf_counter()
        self._first = state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show that a step was taken, with the numbers that were logged last."""
        self._eval_began = time.perf_counter()  # if there is a validation now
        if state.global_step == self._first + 1 and is_rank_zero():
            print_stage("first step", time.perf_counter() - self._began - self._validating)
        if self._shown is not None and state.global_step < state.max_steps:
            step, left = state.global_step, self._seconds_left(state)
            self.display.step(replace(self._shown, step=step, seconds_left=left))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the numbers of the last steps, or of a validation."""
        numbers = kwargs["logs"]
        if "eval_loss" in numbers:
            loss = numbers["eval_loss"]
            seconds = numbers.get("eval_runtime", 0.0)
            self.display.validated(loss, perplexity(loss), state.global_step, seconds)
        if "loss" in numbers:
            self._shown = self._measure(numbers, state)
            self.display.step(self._shown)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show how far a validation is."""
        if not self._batches:
            self.display.validating(0, len(kwargs["eval_dataloader"]), 0.0)
        self._batches += 1
        seconds = time.perf_counter() - self._eval_began
        self.display.validating(self._batches, len(kwargs["eval_dataloader"]), seconds)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Exclude a validation from the time of the steps."""
        seconds = time.perf_counter() - self._eval_began if self._batches else 0.0
        self._validating += seconds
        self._since_last += seconds
        self._batches = 0

    def _measure(self, numbers: dict[str, float], state: TrainerState) -> Shown:
        now, tokens = time.perf_counter(), numbers.get("num_tokens", 0.0)
        seconds = max(now - self._last - self._since_last, 1e-9)
        rate = (tokens - self._tokens) / seconds
        self._last, self._tokens, self._since_last = now, tokens, 0.0
        return Shown(
            step=state.global_step,
            total=state.max_steps,
            epoch=state.epoch or 0.0,
            epochs=state.num_train_epochs,
            loss=numbers["loss"],
            grad_norm=numbers.get("grad_norm", math.nan),
            lr=numbers.get("learning_rate", math.nan),
            tokens_per_second=rate,
            tflops=None,
            memory_gib=memory_gib(),
            seconds_left=self._seconds_left(state),
        )

    def _seconds_left(self, state: TrainerState) -> float:
        done = max(state.global_step - self._first, 1)
        seconds = time.perf_counter() - self._began - self._validating
        return seconds / done * (state.max_steps - state.global_step)
