"""Answers of a run's model before and after training, for what the run ends with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.answers.samples import Samples, find_samples
from llama_recipes_local.checkpoints import rng_state
from llama_recipes_local.models.precision import compute_context
from llama_recipes_local.run import Run
from llama_recipes_local.training.stepping import unwrapped


@contextmanager
def answered(
    run: Run | None, model: nn.Module, tokenizer: PreTrainedTokenizerBase | None
) -> Iterator[None]:
    """Have the model answer before and after the block, where ``--samples`` asks for it.

    A model that is resumed is not loaded yet before: its first answers are those of no training.
    """
    if run is None or tokenizer is None or not run.train.samples:
        yield
        return
    samples = find_samples(run, tokenizer)
    if samples is None:
        yield
        return
    before = _answers(samples, run, model, tokenizer)
    run.stages.end(f"{len(before)} answers before training")
    yield
    after = _answers(samples, run, model, tokenizer)
    run.closing.append(samples.section(before, after))
    samples.save(before, after, Path(run.train.output_dir))


def _answers(
    samples: Samples, run: Run, model: nn.Module, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    plain = unwrapped(model)
    with rng_state.fork_rng(), compute_context(plain, run.train):
        return samples.answers(plain, tokenizer)
