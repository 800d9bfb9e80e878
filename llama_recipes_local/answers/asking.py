"""Prompts a saved model from Python; the model is loaded at the first prompt and kept."""

import sys
import warnings
from collections.abc import Sequence

from llama_recipes_local.answers.generator import Generator, Sampling
from llama_recipes_local.answers.model_loading import load_model, load_tokenizer
from llama_recipes_local.answers.model_source import ModelSource
from llama_recipes_local.answers.prompt_texts import Prompt, check_limits, choose_prompt_template
from llama_recipes_local.answers.stopping import find_stops
from llama_recipes_local.parallel import is_rank_zero


class AskedModel:
    """Completes prompts in the template that the model was trained with."""

    def __init__(self, source: ModelSource) -> None:
        """Load the tokenizer and the prompt template.

        Raises:
            UsageError: if their files are corrupt.
        """
        self._source = source
        self._tokenizer = load_tokenizer(source)
        self._template, why = choose_prompt_template(source, self._tokenizer)
        self._generator: Generator | None = None
        if is_rank_zero():
            print(f"--> {why}", file=sys.stderr)

    def complete(self, prompts: Sequence[str], sampling: Sampling) -> list[list[str]]:
        """Return the completions of each prompt.

        Raises:
            UsageError: if the model cannot take a prompt.
        """
        asked = [Prompt(f"prompt {number}", text) for number, text in enumerate(prompts, 1)]
        texts = [each.to_text(self._template, self._tokenizer) for each in asked]
        check_limits(asked, texts, self._tokenizer, self._source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # transformers' about its own code
            if self._generator is None:
                self._generator = Generator(load_model(self._source), self._tokenizer)
            stops = find_stops(self._template, self._tokenizer, self._generator.ends)
            return self._generator.complete(texts, sampling, stops)
