"""Answers to some prompts of the validation part, before and after training, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.answers.generator import Sampling, generating
from llama_recipes_local.answers.gleu import gleu, words
from llama_recipes_local.answers.questions import Question, questions
from llama_recipes_local.answers.stopping import find_stops
from llama_recipes_local.datasets.base import find_split
from llama_recipes_local.datasets.prompt_template import PromptTemplate
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import UsageError
from llama_recipes_local.run import Run
from llama_recipes_local.run.record import SAMPLES_FILE
from llama_recipes_local.storage.publishing import write_json

SCORED = 32
"""Prompts that GLEU is computed of: few, because a CPU answers each in a second or more."""
LONGEST_ANSWER = 48  # tokens
MOST_CHARACTERS = 200


@dataclass
class Samples:
    """Some prompts, and how they are answered.

    Attributes:
        asked: all of them.
        shown: the places in ``asked`` of those that are printed.
        template: the prompt template; None if unknown.
        scored: whether GLEU says how good the answers are.
    """

    asked: list[Question]
    shown: list[int]
    template: PromptTemplate | None
    scored: bool

    def answers(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        """Return the model's answers by greedy decoding; model and tokenizer are left unchanged.

        This draws random numbers: the caller restores the RNG state.
        """
        with generating(model, tokenizer) as generator:
            stops = find_stops(self.template, tokenizer, generator.ends)
            prompts = [each.prompt for each in self.asked]
            found = generator.complete(prompts, Sampling(max_new_tokens=LONGEST_ANSWER), stops)
        return [" ".join(texts[0].split()) for texts in found]

    def described(self, before: Sequence[str], after: Sequence[str]) -> dict[str, Any]:
        """Return the answers that are shown as JSON-ready data, with the scores of all."""
        found: dict[str, Any] = {"answers": [self._answer(n, before, after) for n in self.shown]}
        if self.scored:
            scores = {"gleu_before": self._gleu(before), "gleu_after": self._gleu(after)}
            found |= {"scored": len(self.asked)} | scores
        return found

    @staticmethod
    def forgotten(before: float | None, after: float | None) -> dict[str, float]:
        """Return the perplexities of general texts before and after; empty without them."""
        if before is None or after is None:
            return {}
        return {"general_perplexity_before": before, "general_perplexity_after": after}

    def save(
        self,
        before: Sequence[str],
        after: Sequence[str],
        folder: Path,
        forgotten: Mapping[str, float],
    ) -> None:
        """Write the answers into a run's folder."""
        write_json(folder / SAMPLES_FILE, {**self.described(before, after), **forgotten})

    def section(
        self, before: Sequence[str], after: Sequence[str], forgotten: Mapping[str, float]
    ) -> str:
        """Return the lines about the answers for the box that a run ends with."""
        found = self.described(before, after)
        lines = ["answers to prompts of the validation data, before and after training"]
        for answer in found["answers"]:
            texts = {name: text or "(nothing)" for name, text in answer.items()}
            lines += ["", *(f"{name:<9}  {_shortened(name, text)}" for name, text in texts.items())]
        if self.scored:
            counted = f"GLEU of {len(self.asked)} answers (0 to 1)"
            scores = f"{found['gleu_before']:.3f} before, {found['gleu_after']:.3f} after"
            lines += ["", f"{counted}  {scores}"]
        if forgotten:
            first, last = forgotten.values()
            told = f"{first:.3f} before, {last:.3f} after ({last / first - 1:+.1%})"
            lines += ["", f"perplexity of general texts  {told}"]
        return "\n".join(lines)

    def _answer(self, place: int, before: Sequence[str], after: Sequence[str]) -> dict[str, str]:
        each = self.asked[place]
        return {
            "prompt": each.source or each.prompt,
            "before": before[place],
            "after": after[place],
            "reference": each.references[0].strip(),
        }

    def _gleu(self, answers: Sequence[str]) -> float:
        sources = [words(each.source) for each in self.asked]
        references = [[words(text) for text in each.references] for each in self.asked]
        keys = [each.prompt for each in self.asked]
        return gleu(keys, sources, [words(text) for text in answers], references).of_all()


def find_samples(run: Run, tokenizer: PreTrainedTokenizerBase) -> Samples | None:
    """Return the prompts that ``--samples`` asks for; print a note and return None without any."""
    count, source = run.train.samples, run.main_source
    dataset = DATASETS[source.dataset]
    scored = "gleu" in dataset.metrics
    try:
        split = find_split(dataset, source.config, "test", tokenizer)
        asked = questions(split, tokenizer, max(count, SCORED if scored else 0)) if split else []
    except UsageError as error:
        print(f"--> no answers are shown: {error.problems[0].what}: {error.problems[0].why}")
        return None
    if split is None or not asked:
        print("--> no answers are shown: the data set has no prompts with responses")
        return None
    short = sorted(range(len(asked)), key=lambda place: len(asked[place].prompt))
    wrong = [place for place in short if asked[place].source not in asked[place].references]
    template = split.formatter.prompt_template(tokenizer)
    return Samples(asked, (wrong or short)[:count], template, scored)


def _shortened(name: str, text: str) -> str:
    """Return the end of a prompt, whose beginning is its template; of other texts the beginning."""
    text = " ".join(text.split())
    if len(text) <= MOST_CHARACTERS:
        return text
    return f"... {text[-MOST_CHARACTERS:]}" if name == "prompt" else f"{text[:MOST_CHARACTERS]} ..."
