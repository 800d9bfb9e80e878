"""Completes prompts, several at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from llama_recipes_local.commands.generate.stopping import Stops
from llama_recipes_local.errors import refusal


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen; the defaults are upstream's, but for drawing, which is off.

    What a model's folder says of this in ``generation_config.json`` does not count.
    """

    max_new_tokens: int = 100
    do_sample: bool = False
    """Whether tokens are drawn; without, each is the likeliest."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 50
    repetition_penalty: float = 1.0
    """What a token's logit is divided by, or multiplied if negative, once the text has it."""
    num_return_sequences: int = 1
    """Completions of each prompt; above 1 only if they are drawn."""
    seed: int = 42

    def options(self) -> dict[str, Any]:
        """Return transformers' options for ``generate``."""
        options: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens,
            "do_sample": self.do_sample,
            "repetition_penalty": self.repetition_penalty,
            "num_return_sequences": self.num_return_sequences,
        }
        if self.do_sample:
            options |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        return options


class Generator:
    """A model, with an adapter or without, that completes prompts.

    Attributes:
        tokenizer: its tokenizer.
        ends: the tokens that end a text, as the model's folder names them.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """Take a model and its tokenizer, which ``loading`` loads."""
        self._model = model
        self.tokenizer = tokenizer
        ends = self._model.generation_config.eos_token_id
        self.ends: list[int] = [] if ends is None else ends if isinstance(ends, list) else [ends]
        # what a folder says of sampling would fill in whatever is not asked for here
        self._model.generation_config = GenerationConfig()

    @torch.no_grad()
    def complete(
        self, prompts: Sequence[str], sampling: Sampling, stops: Stops, streamer: Any = None
    ) -> list[list[str]]:
        """Return what follows each prompt, up to where it stops or ``max_new_tokens``.

        Args:
            prompts: whole texts, with the token that begins them; they make one batch.
            sampling: how tokens are chosen, and how many completions each prompt gets.
            stops: what ends a completion.
            streamer: is given the tokens as they are made; for one prompt.

        Raises:
            UsageError: if a prompt is empty.
        """
        torch.manual_seed(sampling.seed)
        inputs = self.tokenizer(
            list(prompts), add_special_tokens=False, padding=True, return_tensors="pt"
        ).to(self._model.device)
        if not inputs["attention_mask"].any(1).all():
            raise refusal("a prompt is empty", "there is nothing to go on from", "write one")
        generated = self._model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=list(stops.ids) or None,
            stop_strings=list(stops.texts) or None,
            tokenizer=self.tokenizer,
            streamer=streamer,
            use_cache=True,
            **sampling.options(),
        )
        new = generated[:, inputs["input_ids"].shape[1] :]
        texts = map(stops.cut, self.tokenizer.batch_decode(new, skip_special_tokens=True))
        completions, number = list(texts), sampling.num_return_sequences
        return [completions[i : i + number] for i in range(0, len(completions), number)]
