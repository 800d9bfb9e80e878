"""Let a fine-tuned model complete prompts; only completions go to standard output."""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from llama_recipes_local.cli.parsing import number, one_of, read_typed
from llama_recipes_local.cli.shared_flags import DTYPES
from llama_recipes_local.errors import Problem, refusal, refuse

TEMPLATES = ("tokenizer", "llama2", "llama3", "chatml", "guanaco")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    _add_model(parser.add_argument_group("the model"))
    _add_prompts(parser)
    _add_sampling(parser.add_argument_group("how tokens are chosen"))


def _add_model(group: Any) -> None:
    group.add_argument("--adapter", metavar="DIR", type=Path, help="folder that training saved")
    group.add_argument(
        "--model_name",
        metavar="DIR",
        type=Path,
        help="with --adapter the base model's folder (the one that the adapter names); alone a "
        "whole model's, such as a merged one",
    )
    group.add_argument(
        "--tokenizer_name",
        metavar="DIR",
        type=Path,
        help="the tokenizer's folder (the one of training, or the model's)",
    )
    group.add_argument(
        "--dtype",
        type=one_of(DTYPES),
        metavar="NAME",
        help=f"what weights are held in: {', '.join(DTYPES)} (bfloat16 on CUDA, else float32)",
    )
    group.add_argument(
        "--quantization",
        type=one_of(("4bit", "8bit", "none")),
        metavar="BITS",
        help="4bit, 8bit or none (as the adapter was trained)",
    )


def _add_prompts(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is completed")
    given = group.add_mutually_exclusive_group()
    given.add_argument("--prompt", metavar="TEXT", help="a prompt (standard input)")
    given.add_argument("--prompt_file", metavar="FILE", type=Path, help="file with one prompt")
    given.add_argument(
        "--prompts",
        metavar="FILE",
        type=Path,
        help="many prompts: text, one a line; or jsonl, json or csv records with prompt, or with "
        "messages. A JSON object a prompt is printed, in their order",
    )
    given.add_argument("--chat", action="store_true", help="talk, a line of standard input a turn")
    group.add_argument(
        "--batch_size",
        type=number(int, 0, math.inf),
        default=8,
        metavar="N",
        help="with --prompts: how many are completed at a time (%(default)s)",
    )
    group.add_argument(
        "--stream", action="store_true", help="print a completion as it is made; not with --prompts"
    )
    framed = group.add_mutually_exclusive_group()
    framed.add_argument(
        "--raw",
        action="store_true",
        help="leave prompts as they are (they are put into what training used, where it was saved)",
    )
    framed.add_argument(
        "--dataset",
        type=_with_prompt,
        metavar="NAME",
        help="put prompts into what this data set is trained with",
    )
    framed.add_argument(
        "--template",
        type=one_of(TEMPLATES),
        metavar="NAME",
        help=f"make prompts turns of a chat: {', '.join(TEMPLATES)}",
    )
    group.add_argument("--system", metavar="TEXT", help="with --chat: what comes before the turns")


def _with_prompt(word: str) -> str:
    # imported for a word alone, so that --help stays quick
    from llama_recipes_local.datasets.registry import DATASETS

    return one_of(name for name, dataset in DATASETS.items() if dataset.prompt)(word)


def _add_sampling(group: Any) -> None:
    positive = number(int, 0, math.inf)
    group.add_argument(
        "--max_new_tokens", type=positive, default=100, metavar="N", help="at most (%(default)s)"
    )
    group.add_argument(
        "--do_sample", action="store_true", help="draw tokens instead of taking the likeliest"
    )
    group.add_argument(
        "--temperature",
        type=number(float, 0, math.inf),
        metavar="T",
        help="with --do_sample: above 1 is wilder, below 1 tamer (1.0)",
    )
    group.add_argument(
        "--top_p",
        type=number(float, 0, 1),
        metavar="P",
        help="with --do_sample: draw from the likeliest tokens that make up this share (1.0)",
    )
    group.add_argument(
        "--top_k",
        type=number(int, -1, math.inf),
        metavar="K",
        help="with --do_sample: draw from this many of the likeliest tokens; 0 from all (50)",
    )
    group.add_argument(
        "--num_return_sequences",
        type=positive,
        metavar="N",
        help="with --do_sample: completions of each prompt (1)",
    )
    group.add_argument(
        "--repetition_penalty",
        type=number(float, 0, math.inf),
        default=1.0,
        metavar="P",
        help="above 1 makes what the text has already less likely (%(default)s)",
    )
    group.add_argument(
        "--seed",
        type=number(int, -(2**63) - 1, 2**63 - 1),
        default=42,
        metavar="N",
        help="for drawing (%(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Print the completions of what is asked."""
    _check(args)
    prompt = "" if args.chat or args.prompts else _read_prompt(args)

    from llama_recipes_local.commands.generate.command import generate

    generate(args, prompt)


def _check(args: argparse.Namespace) -> None:
    """Refuse flags that say nothing beside the others.

    Raises:
        UsageError: if there are some.
    """
    drawing = ("temperature", "top_p", "top_k", "num_return_sequences")
    several = args.prompts or (args.num_return_sequences or 1) > 1
    checks = [
        (
            getattr(args, name) is not None and not args.do_sample,
            f"--{name} {getattr(args, name)} without --do_sample",
            "the likeliest token is taken each time, so nothing is drawn",
            f"add --do_sample, or leave --{name} out",
        )
        for name in drawing
    ]
    checks += [
        (
            not args.adapter and not args.model_name,
            "there is no model to load",
            "neither an adapter nor a model was named",
            "name what training saved, --adapter DIR, or a whole model, --model_name DIR",
        ),
        (
            args.stream and several,
            "--stream with several completions",
            "they are made together, and would be printed through each other",
            "leave --stream out, or give one --prompt",
        ),
        (
            args.chat and args.num_return_sequences is not None,
            f"--chat with --num_return_sequences {args.num_return_sequences}",
            "a conversation goes on from one answer",
            "leave --num_return_sequences out",
        ),
        (
            args.chat and args.raw,
            "--chat with --raw",
            "turns become one text by a template",
            "leave --raw out",
        ),
        (
            args.system is not None and not args.chat,
            f"--system {args.system!r:.40} without --chat",
            "it comes before the turns of a conversation",
            "add --chat, or give --prompts FILE with messages",
        ),
    ]
    refuse([Problem(*words) for wrong, *words in checks if wrong])


def _read_prompt(args: argparse.Namespace) -> str:
    if args.prompt is not None:
        return read_typed(lambda: args.prompt)
    if args.prompt_file is None:
        return read_typed(sys.stdin.read).rstrip("\n")
    path = args.prompt_file.expanduser().absolute()  # resolved, a pipe's name leads nowhere
    try:
        # the line's end that an editor adds is no part of the text
        return path.read_text("utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise refusal(
            f"--prompt_file {path} cannot be read",
            str(error),
            "name a text file in UTF-8, or give the text itself: --prompt TEXT",
        ) from error
