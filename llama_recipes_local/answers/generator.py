"""Completes prompts, several at a time."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import peft
import torch
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TextStreamer,
)

from llama_recipes_local.answers.stopping import Stops
from llama_recipes_local.datasets.token_ids import text_ids
from llama_recipes_local.errors import refusal


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen; the defaults are upstream's, except that sampling is off.

    A model's ``generation_config.json`` is ignored unless ``Generator`` is told to use it.
    """

    max_new_tokens: int = 100
    do_sample: bool = False
    """Whether tokens are sampled; otherwise each is the likeliest (greedy decoding)."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 50
    repetition_penalty: float | None = 1.0
    """What the logit of a token that the text has is divided by, or multiplied by if negative.
    None leaves it to the generator's configuration."""
    num_return_sequences: int = 1
    """Completions of each prompt; above 1 only with sampling."""
    seed: int = 42

    def options(self) -> dict[str, Any]:
        """Return the options of transformers' ``generate``."""
        options: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens,
            "do_sample": self.do_sample,
            "num_return_sequences": self.num_return_sequences,
        }
        if self.repetition_penalty is not None:
            options["repetition_penalty"] = self.repetition_penalty
        if self.do_sample:
            options |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        return options


class Generator:
    """A model, with an adapter or without, that completes prompts.

    Attributes:
        tokenizer: its tokenizer.
        ends: ids of the tokens that end a text, as the model's folder names them.
        positions: the most tokens of a prompt and its completion; None if there is no limit.
    """

    def __init__(
        self,
        model: PreTrainedModel | peft.PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        configured: bool = False,
    ) -> None:
        """Take a model and its tokenizer, which ``model_loading`` loads.

        Args:
            model: the model.
            tokenizer: its tokenizer.
            configured: whether ``generation_config.json`` sets what ``Sampling`` leaves open.
        """
        self._model: Any = model  # PEFT forwards what it does not have itself
        self.tokenizer = tokenizer
        ends = self._model.generation_config.eos_token_id
        self.ends: list[int] = [] if ends is None else ends if isinstance(ends, list) else [ends]
        config = self._model.config.get_text_config()
        self.positions: int | None = getattr(config, "max_position_embeddings", None)
        self._told = False
        if not configured:
            # the folder's sampling options would fill in those that are not given here
            self._model.generation_config = GenerationConfig()

    def complete(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        stops: Stops,
        streamer: TextStreamer | None = None,
    ) -> list[list[str]]:
        """Return the completions of each prompt, up to a stop or ``max_new_tokens``.

        No completion goes beyond the model's positions, which is said once.

        Args:
            prompts: whole texts, with the token that begins them; one batch.
            sampling: how tokens are chosen, and the number of completions of each prompt.
            stops: what ends a completion.
            streamer: receives the tokens as they are generated; for one prompt only.

        Raises:
            UsageError: if a prompt is empty, or leaves no position.
        """
        found = self.complete_and_tell(prompts, sampling, stops, streamer)
        return [[text for text, _ in each] for each in found]

    @torch.no_grad()
    def complete_and_tell(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        stops: Stops,
        streamer: TextStreamer | None = None,
    ) -> list[list[tuple[str, bool]]]:
        """Return each completion, and whether it ended at a stop; see ``complete``."""
        torch.manual_seed(sampling.seed)
        ids = text_ids(self.tokenizer, prompts)
        if not all(ids):
            raise refusal("a prompt is empty", "there is nothing to complete", "write one")
        room = self._room(ids, sampling.max_new_tokens)
        inputs = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self._model.device)
        generated = self._model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=list(stops.ids) or None,
            stop_strings=list(stops.texts) or None,
            tokenizer=self.tokenizer,
            streamer=streamer,
            use_cache=True,
            synced_gpus=isinstance(self._model, FSDPModule),  # no rank ends before the others
            **sampling.options() | {"max_new_tokens": max(room)},
        )
        number = sampling.num_return_sequences
        new = generated[:, inputs["input_ids"].shape[1] :].tolist()
        new = [each[: room[place // number]] for place, each in enumerate(new)]
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        completions = [
            (stops.truncate(text), stops.ended(ids, text))
            for ids, text in zip(new, texts, strict=True)
        ]
        return [completions[i : i + number] for i in range(0, len(completions), number)]

    def _room(self, prompts: list[list[int]], most: int) -> list[int]:
        """Return how many tokens each completion may have: ``most``, or what positions leave.

        Raises:
            UsageError: if they leave none.
        """
        if self.positions is None:
            return [most] * len(prompts)
        longest = max(map(len, prompts))
        if longest >= self.positions:
            what = f"a prompt has {longest:,} tokens"
            why = f"the model has {self.positions:,} positions (max_position_embeddings)"
            raise refusal(what, why, "shorten it")
        if longest + most > self.positions and not self._told:
            self._told = True
            limit = f"the model's {self.positions:,} positions"
            print(f"--> --max_new_tokens {most:,} is more than {limit} leave", file=sys.stderr)
        return [min(most, self.positions - len(each)) for each in prompts]


@contextmanager
def generating(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> Iterator[Generator]:
    """Let a model that is being trained complete prompts; restore it and the tokenizer after."""
    wrapped: Any = model
    register_fsdp_forward_method(model, "generate")  # it gathers what is in no layer
    training, side, kept = model.training, tokenizer.padding_side, wrapped.generation_config
    model.eval()
    tokenizer.padding_side = "left"
    try:
        yield Generator(wrapped, tokenizer)
    finally:
        wrapped.generation_config, tokenizer.padding_side = kept, side
        vars(model).pop("generate", None)
        model.train(training)
