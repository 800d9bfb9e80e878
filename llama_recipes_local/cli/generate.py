"""Let a fine-tuned model complete a prompt; only the completion goes to standard output."""

import argparse
import math
import sys
from pathlib import Path

from llama_recipes_local.cli.parsing import number, one_of
from llama_recipes_local.errors import Problem, UsageError
from llama_recipes_local.prompts import PROMPTS, format_prompt


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "--adapter", required=True, metavar="DIR", type=Path, help="folder that training saved"
    )
    parser.add_argument(
        "--model_name",
        metavar="DIR",
        type=Path,
        help="the base model's folder (the one that the adapter names)",
    )
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--prompt", metavar="TEXT", help="what to complete (standard input)")
    given.add_argument("--prompt_file", metavar="FILE", type=Path, help="file with the prompt")
    parser.add_argument(
        "--dataset",
        type=one_of(PROMPTS),
        metavar="NAME",
        help="put the text in the prompt that this data set is trained with",
    )
    parser.add_argument(
        "--max_new_tokens",
        type=number(int, 0, math.inf),
        default=100,
        metavar="N",
        help="tokens at most (%(default)s)",
    )
    parser.add_argument(
        "--do_sample", action="store_true", help="draw tokens instead of taking the likeliest"
    )
    parser.add_argument(
        "--temperature",
        type=number(float, 0, math.inf),
        metavar="T",
        help="with --do_sample: above 1 is wilder, below 1 tamer (1.0)",
    )
    parser.add_argument(
        "--top_p",
        type=number(float, 0, 1),
        metavar="P",
        help="with --do_sample: draw from the likeliest tokens that make up this share (1.0)",
    )
    parser.add_argument(
        "--seed", type=int, default=42, metavar="N", help="for drawing (%(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Print the completion of the prompt."""
    from llama_recipes_local.generation import Generator, Sampling

    _check_sampling(args)
    prompt = _read_prompt(args)
    if args.dataset:
        # the line's end that a file or a pipe adds is no part of the text
        prompt = format_prompt(args.dataset, prompt.rstrip("\n"))
    generator = Generator(args.adapter, args.model_name)
    sampling = Sampling(
        max_new_tokens=args.max_new_tokens,
        do_sample=args.do_sample,
        temperature=1.0 if args.temperature is None else args.temperature,
        top_p=1.0 if args.top_p is None else args.top_p,
        seed=args.seed,
    )
    completion = generator.complete(prompt, sampling)
    if not completion.strip():
        print("the model ends the text here: there is no completion", file=sys.stderr)
    print(completion)


def _check_sampling(args: argparse.Namespace) -> None:
    """Refuse flags that say how to draw where nothing is drawn."""
    problems = [
        Problem(
            f"--{name} {value} without --do_sample",
            "the likeliest token is taken each time, so nothing is drawn",
            f"add --do_sample, or leave --{name} out",
        )
        for name, value in (("temperature", args.temperature), ("top_p", args.top_p))
        if value is not None and not args.do_sample
    ]
    if problems:
        raise UsageError(problems)


def _read_prompt(args: argparse.Namespace) -> str:
    if args.prompt is not None:
        return args.prompt
    if args.prompt_file is not None:
        return _read_file(args.prompt_file.expanduser().resolve())
    return sys.stdin.read().rstrip("\n")


def _read_file(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(
            f"--prompt_file {path} cannot be read",
            str(error),
            "name a text file in UTF-8, or give the text itself: --prompt TEXT",
        )
        raise UsageError([problem]) from error
