"""The model's answers before and after training, for the end of the run, and their scores."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.answers.samples import Samples, find_samples
from llama_recipes_local.answers.scored_rows import ScoredRows, find_scored_rows
from llama_recipes_local.benchmark_tasks.forgetting_losses import general_perplexity
from llama_recipes_local.checkpoints import rng_state
from llama_recipes_local.models.precision import compute_context
from llama_recipes_local.parallel import is_rank_zero
from llama_recipes_local.run import Run
from llama_recipes_local.training.display import Display
from llama_recipes_local.training.stepping import unwrapped


@contextmanager
def answered(
    run: Run | None, model: nn.Module, tokenizer: PreTrainedTokenizerBase | None
) -> Iterator[None]:
    """Let the model answer before and after the block, if ``--samples`` asks for it.

    In a resumed run the checkpoint is loaded inside the block, so the first answers are those of
    the untrained model.
    """
    if run is None or tokenizer is None or not run.train.samples:
        yield
        return
    samples = find_samples(run, tokenizer)
    if samples is None:
        yield
        return
    general = [_general_perplexity(run, model, tokenizer)]
    before = _answers(samples, run, model, tokenizer)
    run.stages.end(f"{len(before)} answers before training")
    yield
    after = _answers(samples, run, model, tokenizer)
    general.append(_general_perplexity(run, model, tokenizer))
    forgotten = samples.forgotten(*general)
    run.closing.append(samples.section(before, after, forgotten))
    if is_rank_zero():
        samples.save(before, after, Path(run.train.output_dir), forgotten)


class Scorer:
    """Measures a run's answers to rows of its validation part, at each validation."""

    def __init__(self, run: Run, rows: ScoredRows, tokenizer: PreTrainedTokenizerBase) -> None:
        self._run, self._rows, self._tokenizer = run, rows, tokenizer

    def scores(
        self, model: nn.Module, display: Display, between: Callable[[], None]
    ) -> dict[str, float]:
        """Return the metrics by name, and show them.

        Args:
            model: the model; random numbers are drawn from.
            display: shows them.
            between: called before each batch of prompts.
        """
        began = time.perf_counter()
        with compute_context(model, self._run.train):
            found = self._rows.scores(model, self._tokenizer, between)
        display.answered(len(self._rows.asked), found, time.perf_counter() - began)
        return found


def make_scorer(run: Run | None, tokenizer: PreTrainedTokenizerBase | None) -> Scorer | None:
    """Return the scorer that ``--eval_generation_rows`` asks for; None if it asks for none."""
    rows = find_scored_rows(run, tokenizer) if run is not None and tokenizer is not None else None
    if run is None or tokenizer is None or rows is None:
        return None
    return Scorer(run, rows, tokenizer)


def _answers(
    samples: Samples, run: Run, model: nn.Module, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    plain = unwrapped(model)
    with rng_state.fork_rng(), compute_context(plain, run.train):
        return samples.answers(plain, tokenizer)


def _general_perplexity(
    run: Run, model: nn.Module, tokenizer: PreTrainedTokenizerBase
) -> float | None:
    """Return the perplexity of the texts for forgetting."""
    plain = unwrapped(model)
    with rng_state.fork_rng(), compute_context(plain, run.train):
        return general_perplexity(plain, tokenizer)
