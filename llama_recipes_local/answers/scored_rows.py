"""Scores of answers to some rows of the validation part, computed at each validation of a run."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.answers.generator import Sampling, generating
from llama_recipes_local.answers.gleu import gleu, words
from llama_recipes_local.answers.questions import Question, questions
from llama_recipes_local.answers.rouge import rouge
from llama_recipes_local.answers.stopping import find_stops
from llama_recipes_local.configs.training import (
    ANSWERED_AT_A_TIME,
    BEST_METRICS,
    GLEU,
    LONGEST_ANSWER,
    ROUGE_L,
    STOP_SHARE,
)
from llama_recipes_local.datasets.base import find_split
from llama_recipes_local.datasets.prompt_template import PromptTemplate
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import refusal
from llama_recipes_local.parallel import from_all_ranks, rank, world_size
from llama_recipes_local.run import Run


def answer_metrics(run: Run) -> tuple[str, ...]:
    """Return the metrics of a run's answers: its data set's own, the one asked for, and stops."""
    own = {"gleu": GLEU, "rouge": ROUGE_L}
    named = {own[name] for name in DATASETS[run.main_source.dataset].metrics if name in own}
    asked = {BEST_METRICS.get(run.train.metric_for_best_model.lower(), "")} & {GLEU, ROUGE_L}
    return (*sorted(named | asked), STOP_SHARE)


@dataclass
class ScoredRows:
    """Rows of the validation part, and what is measured of the answers to them.

    Attributes:
        asked: their prompts, with every reference answer.
        template: the prompt template; None if unknown.
        metrics: the names of what is measured.
    """

    asked: list[Question]
    template: PromptTemplate | None
    metrics: tuple[str, ...]

    def scores(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, between: Callable[[], None]
    ) -> dict[str, float]:
        """Return the metrics of the model's answers by greedy decoding, by name.

        All ranks call this together. Each answers some of the batches that one process would
        answer, and gets the answers of all.

        This draws random numbers: the caller restores the RNG state.

        Args:
            model: left unchanged, like the tokenizer.
            tokenizer: the model's.
            between: called before each batch of prompts.
        """
        found: dict[int, tuple[str, bool]] = {}
        longest_first = sorted(range(len(self.asked)), key=lambda i: -len(self.asked[i].prompt))
        sampling = Sampling(max_new_tokens=LONGEST_ANSWER)
        size, count = ANSWERED_AT_A_TIME, len(longest_first)
        batches = [longest_first[start : start + size] for start in range(0, count, size)]
        with generating(model, tokenizer) as generator:
            stops = find_stops(self.template, tokenizer, generator.ends)
            for first in range(0, len(batches), world_size()):
                between()
                # a rank without one of its own repeats one: shards are gathered from all ranks
                places = batches[min(first + rank() % world_size(), len(batches) - 1)]
                prompts = [self.asked[place].prompt for place in places]
                completed = generator.complete_and_tell(prompts, sampling, stops)
                found |= {place: texts[0] for place, texts in zip(places, completed, strict=True)}
        found = {place: each for part in from_all_ranks(found) for place, each in part.items()}
        answers = [found[place][0].strip() for place in range(len(self.asked))]
        stopped = sum(found[place][1] for place in found) / len(found)
        return {name: self._measure(name, answers, stopped) for name in self.metrics}

    def _measure(self, metric: str, answers: list[str], stopped: float) -> float:
        if metric == STOP_SHARE:
            return stopped
        keys = [each.prompt for each in self.asked]
        references = [each.references for each in self.asked]
        if metric == ROUGE_L:
            measures = rouge(keys, answers, references)
            return next(each for each in measures if each.name == ROUGE_L).of_all()
        sources = [words(each.source) for each in self.asked]
        theirs = [[words(text) for text in texts] for texts in references]
        return gleu(keys, sources, [words(text) for text in answers], theirs).of_all()


def find_scored_rows(run: Run, tokenizer: PreTrainedTokenizerBase) -> ScoredRows | None:
    """Return the rows that ``--eval_generation_rows`` asks for; None if it asks for none.

    Raises:
        UsageError: if the data has no prompts with responses, or no source texts for GLEU.
    """
    count, source = run.train.eval_generation_rows, run.main_source
    if not count:
        return None
    metrics = answer_metrics(run)
    split = find_split(DATASETS[source.dataset], source.config, "test", tokenizer)
    asked = questions(split, tokenizer, count) if split else []
    what, fix = f"--eval_generation_rows {count}", "leave it out: the loss needs no answers"
    if split is None or not asked:
        raise refusal(what, "the validation part has no prompts with responses", fix)
    if GLEU in metrics and not all(each.source for each in asked):
        why = "GLEU compares a correction with the source text, which is not known here"
        raise refusal(f"{what} with GLEU", why, "use --metric_for_best_model eval_rougeL or loss")
    return ScoredRows(asked, split.formatter.prompt_template(tokenizer), metrics)
