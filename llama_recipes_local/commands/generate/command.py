"""``llama-recipes-local generate``: completes one prompt, a file of prompts, or a chat."""

import argparse
import json
import sys
from dataclasses import fields
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.commands.generate.chat import chat
from llama_recipes_local.commands.generate.generator import Generator, Sampling
from llama_recipes_local.commands.generate.model_loading import (
    load_model,
    load_tokenizer,
    vocabulary_and_positions,
)
from llama_recipes_local.commands.generate.model_source import ModelSource, find_source
from llama_recipes_local.commands.generate.prompt_texts import (
    Prompt,
    choose_prompt_template,
    read_prompts,
)
from llama_recipes_local.commands.generate.stopping import StoppingStreamer, find_stops
from llama_recipes_local.errors import Problem, UsageError

MAX_PROBLEMS = 10
"""Prompts that are reported at a time."""


def generate(args: argparse.Namespace, prompt: str) -> None:
    """Print the completions; all other output goes to standard error.

    Args:
        args: the command's flags.
        prompt: the prompt, unless there is a file of prompts or a chat.

    Raises:
        UsageError: if a folder, a file or a prompt cannot be used.
    """
    dtype = getattr(torch, args.dtype) if args.dtype else None
    source = find_source(
        args.adapter, args.model_name, args.tokenizer_name, dtype, args.quantization
    )
    tokenizer = load_tokenizer(source)
    template, why = choose_prompt_template(source, tokenizer, args.raw, args.dataset, args.template)
    sampling = _sampling(args)
    print(f"--> {why}", file=sys.stderr)
    if args.chat:
        chat(source, tokenizer, template, sampling, args.system)
        return
    prompts = read_prompts(args.prompts) if args.prompts else [Prompt("the prompt", prompt)]
    texts = [each.to_text(template, tokenizer) for each in prompts]
    _check_limits(prompts, texts, tokenizer, source)
    generator = Generator(load_model(source), tokenizer)
    stops = find_stops(template, tokenizer, generator.ends)
    if args.stream:
        streamer = StoppingStreamer(tokenizer, stops)
        generator.complete(texts, sampling, stops, streamer)
    elif not args.prompts:
        _print_one(generator.complete(texts, sampling, stops)[0])
    else:
        for start in range(0, len(texts), args.batch_size):
            batch = slice(start, start + args.batch_size)
            completions = generator.complete(texts[batch], sampling, stops)
            for each, completed in zip(prompts[batch], completions, strict=True):
                print(json.dumps(_record(each, completed), ensure_ascii=False), flush=True)


def _check_limits(
    prompts: list[Prompt],
    texts: list[str],
    tokenizer: PreTrainedTokenizerBase,
    source: ModelSource,
) -> None:
    """Refuse prompts that the model cannot take, before its weights are loaded.

    Raises:
        UsageError: if one has more tokens than the model has positions, or a token outside of its
            vocabulary.
    """
    rows, positions = vocabulary_and_positions(source)
    problems = []
    for prompt, text in zip(prompts, texts, strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if positions and len(ids) >= positions:
            what = f"{prompt.where} has {len(ids):,} tokens"
            why = f"the model in {source.model} has {positions:,} positions"
            problems.append(Problem(what, f"{why} (max_position_embeddings)", "shorten it"))
        unknown = [token for token in ids if token >= rows]
        if unknown:
            token = tokenizer.convert_ids_to_tokens(unknown[0])
            what = f"{prompt.where} has the token {token!r}, number {unknown[0]:,}"
            why = f"the vocabulary of the model in {source.model} has {rows:,} tokens"
            fix = "name the tokenizer that was trained with the model: --tokenizer_name DIR"
            problems.append(Problem(what, why, fix))
    if problems:
        raise UsageError(problems[:MAX_PROBLEMS])


def _sampling(args: argparse.Namespace) -> Sampling:
    names = (field.name for field in fields(Sampling))
    given = {name: getattr(args, name) for name in names}
    return Sampling(**{name: value for name, value in given.items() if value is not None})


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
