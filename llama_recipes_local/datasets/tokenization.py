"""From pairs of prompt and response to token ids with labels."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.data.concatenator import IGNORE_INDEX

Sample = dict[str, list[int]]


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]
) -> list[Sample]:
    """Tokenise prompts and responses; only the response and the end of text are labels.

    Prompt and response are tokenised apart, as upstream does, so that no token spans both.

    Returns:
        A sample a pair: ``input_ids``, ``labels`` and ``attention_mask``, lists of one length.
    """
    bos, eos = tokenizer.bos_token or "", tokenizer.eos_token or ""
    prompts = _encode(tokenizer, [bos + prompt for prompt, _ in pairs])
    responses = _encode(tokenizer, [response + eos for _, response in pairs])
    return [_sample(p, r) for p, r in zip(prompts, responses, strict=True)]


def encode_prefixed(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]
) -> list[Sample]:
    """Tokenise each prompt and response as one text, as upstream does for Alpaca.

    The labels are what follows as many tokens as the prompt alone has.
    """
    prompts = _encode(tokenizer, [prompt for prompt, _ in pairs], special=True)
    texts = _encode(tokenizer, [prompt + response for prompt, response in pairs], special=True)
    end = [tokenizer.eos_token_id]
    return [
        _sample(text[: len(prompt)], text[len(prompt) :] + end)
        for prompt, text in zip(prompts, texts, strict=True)
    ]


def _encode(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], special: bool = False, batch: int = 1024
) -> list[list[int]]:
    remaining = iter(texts)
    encoded: list[list[int]] = []
    while chunk := list(islice(remaining, batch)):
        options: dict[str, Any] = {"add_special_tokens": special, "verbose": False}
        encoded += tokenizer(chunk, **options)["input_ids"]
    return encoded


def _sample(prompt: list[int], response: list[int]) -> Sample:
    ids = prompt + response
    return {
        "input_ids": ids,
        "labels": [IGNORE_INDEX] * len(prompt) + response,
        "attention_mask": [1] * len(ids),
    }
