"""``llama-recipes-local generate``: completes one prompt, a file of prompts, or a chat."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from llama_recipes_local.answers.generator import Generator, Sampling
from llama_recipes_local.answers.model_loading import load_model, load_tokenizer
from llama_recipes_local.answers.model_source import find_source
from llama_recipes_local.answers.prompt_texts import (
    Prompt,
    check_limits,
    choose_prompt_template,
    read_prompts,
)
from llama_recipes_local.answers.stopping import StoppingStreamer, Stops, cut_off, find_stops
from llama_recipes_local.commands.generate.chat import chat
from llama_recipes_local.console import data_output
from llama_recipes_local.serving_lines import of_adapter, of_folder


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What to complete, and with what.

    Attributes:
        adapter: folder of the saved adapter; None for a full model.
        model: folder of the full model, or of the base model if the adapter's has moved.
        tokenizer: the tokenizer's folder; None means the one used in training, or the model's.
        dtype: dtype of the weights; None means bfloat16 on CUDA and float32 on the CPU.
        quantization: "4bit", "8bit" or "none"; None means as the adapter was trained.
        allow_other_base: whether the base model may be another than the adapter was trained on.
        prompt: the prompt, unless there is a file of prompts or a chat.
        prompts: a file of prompts.
        batch_size: prompts that are completed at a time.
        chat: whether the user chats on standard input.
        system: the system message before the chat, or before each prompt.
        stream: whether tokens are printed as they come.
        raw: whether prompts are not put into a template.
        dataset: the data set whose prompt template is used.
        template: the name of the chat template that is used.
        sampling: how tokens are chosen.
    """

    adapter: Path | None
    model: Path | None
    tokenizer: Path | None
    dtype: torch.dtype | None
    quantization: str | None
    allow_other_base: bool
    prompt: str
    prompts: Path | None
    batch_size: int
    chat: bool
    system: str | None
    stream: bool
    raw: bool
    dataset: str | None
    template: str | None
    sampling: Sampling


def generate(asked: Generation) -> None:
    """Print the completions; all other output goes to standard error.

    Raises:
        UsageError: if a folder, a file or a prompt cannot be used.
    """
    with data_output():
        _generate(asked)


def _generate(asked: Generation) -> None:
    source = find_source(
        asked.adapter,
        asked.model,
        asked.tokenizer,
        asked.dtype,
        asked.quantization,
        asked.allow_other_base,
    )
    tokenizer = load_tokenizer(source)
    template, why = choose_prompt_template(
        source, tokenizer, asked.raw, asked.dataset, asked.template
    )
    print(f"--> {why}", file=sys.stderr)
    if asked.chat:
        chat(source, tokenizer, template, asked.sampling, asked.system)
        return
    one = [Prompt("the prompt", asked.prompt)]
    prompts = read_prompts(asked.prompts) if asked.prompts else one
    if asked.system:
        prompts = [replace(prompt, system=asked.system) for prompt in prompts]
    texts = [each.to_text(template, tokenizer) for each in prompts]
    check_limits(prompts, texts, tokenizer, source)
    generator = Generator(load_model(source), tokenizer)
    stops = find_stops(template, tokenizer, generator.ends)
    ended = _print_completions(asked, prompts, texts, generator, stops)
    if not all(ended):
        print(cut_off(ended, asked.sampling.max_new_tokens), file=sys.stderr)
    adapter, model = source.adapter, source.model
    print(of_adapter(adapter, model) if adapter else of_folder(model), file=sys.stderr)


def _print_completions(
    asked: Generation,
    prompts: list[Prompt],
    texts: list[str],
    generator: Generator,
    stops: Stops,
) -> list[bool]:
    """Print the completions of each prompt, and return of each whether it ended by itself."""
    streamer = StoppingStreamer(generator.tokenizer, stops) if asked.stream else None
    ended: list[bool] = []
    for start in range(0, len(texts), asked.batch_size):
        batch = slice(start, start + asked.batch_size)
        found = generator.complete_and_tell(texts[batch], asked.sampling, stops, streamer)
        for prompt, completed in zip(prompts[batch], found, strict=True):
            completions = [text for text, _ in completed]
            ended += [end for _, end in completed]
            if asked.prompts:
                print(json.dumps(_record(prompt, completions), ensure_ascii=False), flush=True)
            elif streamer is None:
                _print_one(completions)
    return ended


def _print_one(completions: list[str]) -> None:
    """Print a prompt's completions, an empty line between them."""
    if not any(completion.strip() for completion in completions):
        print("the completion is empty: the model ends the text here", file=sys.stderr)
    print("\n\n".join(completions))


def _record(prompt: Prompt, completions: list[str]) -> dict[str, Any]:
    answer: dict[str, Any] = {"completion": completions[0]}
    if len(completions) > 1:
        answer = {"completions": completions}
    return {prompt.key: prompt.content} | answer
