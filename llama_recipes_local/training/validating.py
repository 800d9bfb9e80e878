"""Validations during a run: the loss, also by source, and answers; shown and logged."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch.utils.data import DataLoader

from llama_recipes_local.answers.measures import perplexity
from llama_recipes_local.checkpoints import rng_state
from llama_recipes_local.training import batches
from llama_recipes_local.training.answering import make_scorer
from llama_recipes_local.training.evaluation import Evaluated, evaluate, groups_of
from llama_recipes_local.training.parts import Parts
from llama_recipes_local.training.signals import StopRequested
from llama_recipes_local.training.step_sync import any_rank


class Validator:
    """Validates a run's model; all ranks call it together.

    Attributes:
        busy: whether a validation is under way; it stays true if an error ends one.
    """

    def __init__(self, parts: Parts, dataloader: DataLoader[Any]) -> None:
        """Validate on the batches of ``dataloader``, and score answers if the run asks for it."""
        self.parts = parts
        self._dataloader = dataloader
        self._scorer = make_scorer(parts.run, parts.tokenizer)
        self.busy = False

    def evaluate(self) -> Evaluated:
        """Evaluate; show and log on the first rank."""
        parts = self.parts
        began, step, progress = time.perf_counter(), parts.state.step, parts.progress
        self.busy = True
        with rng_state.fork_rng():
            groups = groups_of(self._dataloader)
            found = evaluate(parts.plain_model, parts.config, self._until_stopped(), groups)
        self.busy = False
        ppl = perplexity(found.loss)
        seconds = time.perf_counter() - began
        progress.display.validated(found.loss, ppl, step, seconds, found.by_source)
        if self._scorer is not None:
            with rng_state.fork_rng():
                scores = self._scorer.scores(
                    parts.plain_model, progress.display, self._stop_if_asked
                )
            found = replace(found, scores=scores)
        numbers = {"step": step, "loss": found.loss, "perplexity": ppl}
        of_sources = {f"loss/{name}": loss for name, loss in found.by_source.items()}
        progress.log("eval", numbers | of_sources | found.scores)
        progress.pause()
        return found

    def _until_stopped(self) -> Iterator[batches.Batch]:
        """Yield the validation batches, until a rank receives a signal to stop."""
        loader, began, parts = self._dataloader, time.perf_counter(), self.parts
        limits = [parts.config.max_eval_step] if parts.config.max_eval_step else []
        total = min(len(loader), *limits) if limits else len(loader)
        parts.progress.display.validating(0, total, 0.0)
        for done, batch in enumerate(loader):
            parts.at("a validation")
            if done:
                parts.progress.display.validating(done, total, time.perf_counter() - began)
            self._stop_if_asked()
            yield batch

    def _stop_if_asked(self) -> None:
        """Raise ``StopRequested`` if a rank has received a signal to stop."""
        if any_rank(self.parts.signals.received is not None):
            raise StopRequested
